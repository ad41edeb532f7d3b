//! `GetRegisterCode`.

use catrust_domain::{Command, ReplyBody};
use catrust_proto::v1;
use uuid::Uuid;

use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::Action;

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

/// Whether a text looks like the codes that are given out: 32 lower-case hexadecimal digits.
pub(super) fn is_register_code(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_out_is_a_code() {
        assert!(is_register_code(&Uuid::new_v4().simple().to_string()));
        for text in
            ["", "x", &"a".repeat(31), &"A".repeat(32), &"a".repeat(33), "\0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
        {
            assert!(!is_register_code(text), "{text:?}");
        }
    }
}
