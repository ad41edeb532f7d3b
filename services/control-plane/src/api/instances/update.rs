//! `UpdateInstance`.

use catrust_domain::Command;
use catrust_proto::v1;

use super::check_operator;
use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::UpdateInstanceRequest,
) -> Result<v1::UpdateInstanceResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let owner = match request.owner_account_id.as_str() {
        "" => Some(None),
        text => fields.owner_account_id(text).map(Some),
    };
    let edition = fields.optional_edition(request.edition);
    let key = fields.request_id(&std::mem::take(&mut request.request_id));
    let (Some(id), Some(owner_account_id), Some(edition), Some(key)) = (id, owner, edition, key) else {
        return Err(fields.into_error());
    };
    call.identify_by(key, "UpdateInstance", &request);

    let instance = api.load_instance(&id).await?;
    let policy_version = api.authorize_on(call, &instance, Action::UpdateInstance)?;
    check_operator(call, Action::UpdateInstance)?;
    let command = Command::UpdateInstance { owner_account_id, edition };
    let reply = api.submit(call, id, command, &policy_version).await?;
    Ok(v1::UpdateInstanceResponse {
        request_id: call.request_id.to_string(),
        instance: Some(convert::reply_instance(&reply.body)?),
        changed: reply.changed,
        position: reply.position,
    })
}
