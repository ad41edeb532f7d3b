//! `ListCaCertificateEvents`.

use catrust_domain::Rejection;
use catrust_proto::v1;

use crate::access::Action;
use crate::api::{Api, Call, Fields, convert, paging};
use crate::error::ApiError;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ListCaCertificateEventsRequest,
) -> Result<v1::ListCaCertificateEventsResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let sn = fields.optional_sn(&request.sn);
    let page_size = fields.page_size(request.page_size);
    let (Some(id), Some(sn), Some(page_size)) = (id, sn, page_size) else { return Err(fields.into_error()) };
    let list = format!("events/{id}/{}", sn.as_ref().map_or("", |sn| sn.as_str()));
    let after = paging::position(&list, &request.page_token)?;

    api.admit(call, &id, Action::ListCaCertificateEvents).await?;
    let mut events = api.store.list_trust_changes(&id, sn.as_ref(), after, page_size + 1).await?;
    if events.is_empty() && after == 0 && sn.is_some() {
        return Err(Rejection::CertificateNotFound.into());
    }
    let more = events.len() > page_size as usize;
    events.truncate(page_size as usize);
    let last = events.last().map_or(after, |event| event.position);
    Ok(v1::ListCaCertificateEventsResponse {
        request_id: call.request_id.to_string(),
        events: events.into_iter().map(convert::ca_certificate_event).collect::<Result<_, _>>()?,
        next_page_token: if more { paging::token(&list, last) } else { String::new() },
    })
}
