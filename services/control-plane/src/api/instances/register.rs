//! `RegisterInstance`.

use catrust_domain::Command;
use catrust_domain::event::InstanceRegistered;
use catrust_proto::v1;

use super::check_operator;
use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::{Action, InstanceResource};

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::RegisterInstanceRequest,
) -> Result<v1::RegisterInstanceResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.new_instance_id(&request.mqtt_instance_id);
    let region_id = fields.region_id(&request.region_id);
    let owner_account_id = fields.owner_account_id(&request.owner_account_id);
    let edition = fields.edition(request.edition);
    let key = fields.request_id(&std::mem::take(&mut request.request_id));
    let (Some(id), Some(region_id), Some(owner_account_id), Some(edition), Some(key)) =
        (id, region_id, owner_account_id, edition, key)
    else {
        return Err(fields.into_error());
    };
    call.identify_by(key, "RegisterInstance", &request);

    let resource = InstanceResource {
        region_id: Some(&region_id),
        account_id: Some(&owner_account_id),
        instance_id: Some(&id),
    };
    let policy_version = api.authorize(call, Action::RegisterInstance, &resource)?;
    check_operator(call, Action::RegisterInstance)?;
    let command = Command::RegisterInstance(InstanceRegistered { region_id, owner_account_id, edition });
    let reply = api.submit(call, id, command, &policy_version).await?;
    Ok(v1::RegisterInstanceResponse {
        request_id: call.request_id.to_string(),
        instance: Some(convert::reply_instance(&reply.body)?),
        changed: reply.changed,
        position: reply.position,
    })
}
