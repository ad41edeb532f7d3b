//! `ListInstances`.

use catrust_proto::v1;

use super::check_operator;
use crate::api::{Api, Call, Fields, convert, paging};
use crate::error::ApiError;
use catrust_access::{Action, InstanceResource};

const LIST: &str = "instances";

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ListInstancesRequest,
) -> Result<v1::ListInstancesResponse, ApiError> {
    let mut fields = Fields::default();
    let Some(page_size) = fields.page_size(request.page_size) else { return Err(fields.into_error()) };
    let after = paging::position(LIST, &request.page_token)?;

    let everything = InstanceResource { region_id: None, account_id: None, instance_id: None };
    api.authorize(call, Action::ListInstances, &everything)?;
    // The list runs over every account.
    check_operator(call, Action::ListInstances)?;
    let mut page = api.store.list_instances(after, page_size + 1).await?;
    let more = page.items.len() > page_size as usize;
    page.items.truncate(page_size as usize);
    let last = page.items.last().map_or(after, |instance| instance.registered_position);
    Ok(v1::ListInstancesResponse {
        request_id: call.request_id.to_string(),
        instances: page.items.iter().map(convert::instance).collect(),
        next_page_token: if more { paging::token(LIST, last) } else { String::new() },
        total_size: i32::try_from(page.total).unwrap_or(i32::MAX),
    })
}
