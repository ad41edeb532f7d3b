//! `GetCaCertificate`.

use catrust_domain::Rejection;
use catrust_proto::v1;

use crate::api::{Api, Call, Fields, convert};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::GetCaCertificateRequest,
) -> Result<v1::GetCaCertificateResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let sn = fields.sn(&request.sn);
    let (Some(id), Some(sn)) = (id, sn) else { return Err(fields.into_error()) };

    api.admit(call, &id, Action::GetCaCertificate).await?;
    let view = api.store.find_certificate(&id, &sn).await?.ok_or(Rejection::CertificateNotFound)?;
    Ok(v1::GetCaCertificateResponse {
        request_id: call.request_id.to_string(),
        ca_certificate: Some(convert::ca_certificate(&view.certificate, &view.same_key_sns)),
    })
}
