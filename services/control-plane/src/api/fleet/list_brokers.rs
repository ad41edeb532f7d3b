//! `ListBrokers`.

use catrust_proto::v1;

use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ListBrokersRequest,
) -> Result<v1::ListBrokersResponse, ApiError> {
    let mut fields = Fields::default();
    let Some(id) = fields.instance_id(&request.mqtt_instance_id) else { return Err(fields.into_error()) };

    api.admit(call, &id, Action::ListBrokers).await?;
    let brokers = api.fleet.brokers(&id).await?;
    Ok(v1::ListBrokersResponse {
        request_id: call.request_id.to_string(),
        brokers: brokers.iter().map(|(member, lost)| convert::broker(member, *lost)).collect(),
    })
}
