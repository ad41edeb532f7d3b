//! `GetRegisterCode`.

use catrust_domain::{Command, ReplyBody};
use catrust_proto::v1;
use uuid::Uuid;

use crate::access::Action;
use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::GetRegisterCodeRequest,
) -> Result<v1::GetRegisterCodeResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let key = fields.request_id(&std::mem::take(&mut request.request_id));
    let (Some(id), Some(key)) = (id, key) else { return Err(fields.into_error()) };
    call.identify_by(key, "GetRegisterCode", &request);

    let policy_version = api.admit(call, &id, Action::GetRegisterCode).await?;
    let register_code = Uuid::new_v4().simple().to_string();
    let reply = api.submit(call, id, Command::IssueRegisterCode { register_code }, &policy_version).await?;
    match reply.body {
        ReplyBody::RegisterCode(register_code) => {
            Ok(v1::GetRegisterCodeResponse { request_id: call.request_id.to_string(), register_code })
        }
        _ => Err(convert::unexpected_reply()),
    }
}
