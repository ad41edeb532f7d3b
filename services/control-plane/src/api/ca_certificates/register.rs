//! `RegisterCaCertificate`.

use std::sync::Arc;

use catrust_domain::{Command, Rejection};
use catrust_proto::v1;

use super::get_register_code::is_register_code;
use crate::api::{Api, Call, Fields, convert};
use crate::certificate::prove_possession;
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::RegisterCaCertificateRequest,
) -> Result<v1::RegisterCaCertificateResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let ca_name = fields.ca_name(request.ca_name.clone());
    let key = fields.request_id(&std::mem::take(&mut request.request_id));
    let (Some(id), Some(ca_name), Some(key)) = (id, ca_name, key) else { return Err(fields.into_error()) };
    call.identify_by(key, "RegisterCaCertificate", &request);
    let proven = prove_possession(&request.ca_content, &request.verification_content, api.now())?;

    let policy_version = api.admit(call, &id, Action::RegisterCa).await?;
    // A text of another shape was never given out as a code: the store need not be asked.
    if !is_register_code(&proven.register_code) {
        return Err(Rejection::RegisterCodeUnknown.into());
    }
    let command = Command::RegisterCaCertificate {
        facts: Arc::new(proven.facts),
        ca_name,
        register_code: proven.register_code,
        certificate_limit: api.rules.certificates_per_instance,
    };
    let reply = api.submit(call, id, command, &policy_version).await?;
    let certificate = convert::reply_certificate(&reply.body)?;
    Ok(v1::RegisterCaCertificateResponse {
        request_id: call.request_id.to_string(),
        sn: certificate.sn.clone(),
        ca_certificate: Some(certificate),
        position: reply.position,
        revision: reply.revision,
    })
}
