//! `ListRefusals`.

use catrust_domain::{AccountId, Rejection, Sha256};
use catrust_event_store::{RefusalFilter, RefusedCall};
use catrust_proto::v1;
use catrust_trust_feed::message::timestamp;
use prost::Message as _;

use crate::api::{Api, Call, Fields, paging};
use crate::error::ApiError;
use catrust_access::{Action, InstanceResource};

const ACTION: Action = Action::ListRefusals;
/// Longest code to look for, in bytes.
const MAX_CODE: usize = 64;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ListRefusalsRequest,
) -> Result<v1::ListRefusalsResponse, ApiError> {
    let mut fields = Fields::default();
    let page_size = fields.page_size(request.page_size);
    let account = match request.account_id.is_empty() {
        true => Some(None),
        false => fields.account_id(&request.account_id).map(Some),
    };
    let actor = fields.actor("actor", &request.actor);
    let code = match request.code.len() <= MAX_CODE && request.code.chars().all(char::is_alphanumeric) {
        true => Some(request.code.clone()),
        false => {
            fields.complain("code", "is no code of the error table, such as PermissionCheckFailed");
            None
        }
    };
    let (Some(page_size), Some(account), Some(actor), Some(code)) = (page_size, account, actor, code) else {
        return Err(fields.into_error());
    };
    let list = list_name(&request);
    let before = match paging::position(&list, &request.page_token)? {
        0 => u64::MAX,
        before => before,
    };

    admit(api, call, account.as_ref())?;
    let filter = RefusalFilter { account_id: request.account_id, principal: actor.unwrap_or_default(), code };
    let mut found = api.store.list_refusals(&filter, before, page_size + 1).await?;
    let more = found.len() > page_size as usize;
    found.truncate(page_size as usize);
    let last = found.last().map_or(0, |(number, _)| *number);
    Ok(v1::ListRefusalsResponse {
        request_id: call.request_id.to_string(),
        refusals: found.into_iter().map(|(_, refusal)| message(refusal)).collect(),
        next_page_token: if more { paging::token(&list, last) } else { String::new() },
    })
}

/// Callers see what their own account was refused, operators everything.
fn admit(api: &Api, call: &Call, account: Option<&AccountId>) -> Result<(), ApiError> {
    let resource = InstanceResource { region_id: None, account_id: account, instance_id: None };
    api.authorize(call, ACTION, &resource)?;
    match account {
        _ if call.identity.operator => Ok(()),
        None => Err(ApiError::OperatorsOnly { action: ACTION.name() }),
        Some(account) if call.identity.account_id == *account => Ok(()),
        Some(_) => Err(Rejection::NotOwner.into()),
    }
}

fn list_name(request: &v1::ListRefusalsRequest) -> String {
    let asked = v1::ListRefusalsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    format!("refusals/{}", Sha256::of(&asked.encode_to_vec()))
}

fn message(refusal: RefusedCall) -> v1::Refusal {
    v1::Refusal {
        first_at: Some(timestamp(refusal.first_at)),
        last_at: Some(timestamp(refusal.last_at)),
        attempts: refusal.attempts,
        actor: refusal.principal,
        account_id: refusal.account_id,
        method: refusal.method,
        code: refusal.code,
        message: refusal.message,
        mqtt_instance_id: refusal.instance_id,
        source_address: refusal.source_address,
        request_id: refusal.request_id,
    }
}
