//! `GetInstance`.

use catrust_domain::Rejection;
use catrust_proto::v1;

use super::check_owner;
use crate::api::{Api, Call, Fields, convert};
use crate::directory::InstanceSummary;
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::GetInstanceRequest,
) -> Result<v1::GetInstanceResponse, ApiError> {
    let mut fields = Fields::default();
    let Some(id) = fields.instance_id(&request.mqtt_instance_id) else { return Err(fields.into_error()) };

    let instance = api.store.find_instance(&id).await?.ok_or(Rejection::InstanceNotFound)?;
    api.authorize_on(call, &InstanceSummary::from(&instance), Action::GetInstance)?;
    check_owner(call, &instance.owner_account_id)?;
    Ok(v1::GetInstanceResponse {
        request_id: call.request_id.to_string(),
        instance: Some(convert::instance(&instance)),
    })
}
