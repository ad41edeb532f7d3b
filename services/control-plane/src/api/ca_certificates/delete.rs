//! `DeleteCaCertificate`.

use catrust_domain::{Command, ReplyBody};
use catrust_proto::v1;

use super::state_change::StateChange;
use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::DeleteCaCertificateRequest,
) -> Result<v1::DeleteCaCertificateResponse, ApiError> {
    let mut fields = Fields::default();
    let (wait, key) = (request.wait.take(), std::mem::take(&mut request.request_id));
    let texts = (&*request.mqtt_instance_id, &*request.sn, &*request.reason);
    let change = StateChange::parse(&mut fields, texts, wait.as_ref(), &key);
    let Some(change) = change else { return Err(fields.into_error()) };
    call.identify_by(change.key, "DeleteCaCertificate", &request);

    let with_will = api.rules.cut_with_will;
    let command = |sn, reason| Command::DeleteCaCertificate { sn, with_will, reason };
    let (reply, propagation) = change.commit(api, call, Action::DeleteCaCertificate, command).await?;
    let ReplyBody::Deleted { sn } = reply.body else { return Err(convert::unexpected_reply()) };
    Ok(v1::DeleteCaCertificateResponse {
        request_id: call.request_id.to_string(),
        sn: sn.to_string(),
        position: reply.position,
        revision: reply.revision,
        propagation,
    })
}
