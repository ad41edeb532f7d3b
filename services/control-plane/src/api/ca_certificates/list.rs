//! `ListCaCertificates`.

use catrust_event_store::StateFilter;
use catrust_proto::v1;

use crate::api::{Api, Call, Fields, convert, paging};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ListCaCertificatesRequest,
) -> Result<v1::ListCaCertificatesResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let page_size = fields.page_size(request.page_size);
    let state = fields.state(request.state);
    let (Some(id), Some(page_size), Some(state)) = (id, page_size, state) else {
        return Err(fields.into_error());
    };
    let list = format!("ca-certificates/{id}/{}", state.as_str_name());
    let after = paging::position(&list, &request.page_token)?;

    api.admit(call, &id, Action::ListCaCertificate).await?;
    let filter = match state {
        v1::CaCertificateState::Unspecified => StateFilter::Any,
        v1::CaCertificateState::Active => StateFilter::Active,
        v1::CaCertificateState::Inactive => StateFilter::Inactive,
    };
    // One more than the page tells whether there is a next one.
    let mut page = api.store.list_certificates(&id, filter, after, page_size + 1).await?;
    let more = page.items.len() > page_size as usize;
    page.items.truncate(page_size as usize);
    let last = page.items.last().map_or(after, |view| view.certificate.registered_position);
    Ok(v1::ListCaCertificatesResponse {
        request_id: call.request_id.to_string(),
        ca_certificates: page
            .items
            .iter()
            .map(|view| convert::ca_certificate(&view.certificate, &view.same_key_sns))
            .collect(),
        next_page_token: if more { paging::token(&list, last) } else { String::new() },
        total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
    })
}
