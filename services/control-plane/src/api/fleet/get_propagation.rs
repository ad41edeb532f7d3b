//! `GetPropagation`.

use catrust_proto::v1;

use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::GetPropagationRequest,
) -> Result<v1::GetPropagationResponse, ApiError> {
    let mut fields = Fields::default();
    let Some(id) = fields.instance_id(&request.mqtt_instance_id) else { return Err(fields.into_error()) };

    api.admit(call, &id, Action::GetPropagation).await?;
    let revision = super::revision(api, &id, request.revision).await?;
    let found = api.fleet.propagation(&id, revision).await?;
    Ok(v1::GetPropagationResponse {
        request_id: call.request_id.to_string(),
        propagation: Some(convert::propagation(&id, &found)),
    })
}
