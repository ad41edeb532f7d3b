//! `DeleteCaCertificate`.

use catrust_domain::{Command, ReplyBody};
use catrust_proto::v1;

use crate::access::Action;
use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::DeleteCaCertificateRequest,
) -> Result<v1::DeleteCaCertificateResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let sn = fields.sn(&request.sn);
    let reason = fields.reason(request.reason.clone());
    // Like the key itself no part of what is asked for: a repetition may wait longer.
    let wait = fields.wait(request.wait.take().as_ref());
    let key = fields.request_id(&std::mem::take(&mut request.request_id));
    let (Some(id), Some(sn), Some(reason), Some(wait), Some(key)) = (id, sn, reason, wait, key) else {
        return Err(fields.into_error());
    };
    call.identify_by(key, "DeleteCaCertificate", &request);

    let policy_version = api.admit(call, &id, Action::DeleteCaCertificate).await?;
    let with_will = api.rules.cut_with_will;
    let command = Command::DeleteCaCertificate { sn, with_will, reason };
    let reply = api.submit(call, id.clone(), command, &policy_version).await?;
    let propagation = api.wait(call, &id, reply.revision, wait).await;
    match reply.body {
        ReplyBody::Deleted { sn } => Ok(v1::DeleteCaCertificateResponse {
            request_id: call.request_id.to_string(),
            sn: sn.to_string(),
            position: reply.position,
            revision: reply.revision,
            propagation,
        }),
        _ => Err(convert::unexpected_reply()),
    }
}
