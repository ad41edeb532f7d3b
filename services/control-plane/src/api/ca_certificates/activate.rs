//! `ActivateCaCertificate`.

use catrust_domain::Command;
use catrust_proto::v1;

use super::state_change::StateChange;
use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::ActivateCaCertificateRequest,
) -> Result<v1::ActivateCaCertificateResponse, ApiError> {
    let mut fields = Fields::default();
    let (wait, key) = (request.wait.take(), std::mem::take(&mut request.request_id));
    let texts = (&*request.mqtt_instance_id, &*request.sn, &*request.reason);
    let change = StateChange::parse(&mut fields, texts, wait.as_ref(), &key);
    let Some(change) = change else { return Err(fields.into_error()) };
    call.identify_by(change.key, "ActivateCaCertificate", &request);

    let expected_revision = request.expected_revision;
    let command = |sn, reason| Command::ActivateCaCertificate { sn, expected_revision, reason };
    let (reply, propagation) = change.commit(api, call, Action::ActiveCaCertificate, command).await?;
    let certificate = convert::reply_certificate(&reply.body)?;
    Ok(v1::ActivateCaCertificateResponse {
        request_id: call.request_id.to_string(),
        sn: certificate.sn.clone(),
        changed: reply.changed,
        ca_certificate: Some(certificate),
        position: reply.position,
        revision: reply.revision,
        propagation,
    })
}
