//! `ListCaCertificateEvents`.

use std::collections::BTreeSet;

use catrust_domain::event::{EventType, TrustOutcome};
use catrust_domain::{AccountId, InstanceId, RecordedEvent, Rejection, Sha256};
use catrust_event_store::{SearchScope, TrustChangeSearch};
use catrust_proto::v1;
use prost::Message as _;

use crate::api::{Api, Call, Fields, convert, paging};
use crate::error::ApiError;
use catrust_access::{Action, InstanceResource};

const ACTION: Action = Action::ListCaCertificateEvents;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ListCaCertificateEventsRequest,
) -> Result<v1::ListCaCertificateEventsResponse, ApiError> {
    let mut fields = Fields::default();
    let page_size = fields.page_size(request.page_size);
    let search = search(&mut fields, &request);
    let (Some(search), Some(page_size)) = (search, page_size) else { return Err(fields.into_error()) };
    let list = list_name(&request);
    let after = paging::position(&list, &request.page_token)?;

    admit(api, call, &search.scope).await?;
    let page = api.store.search_trust_changes(&search, after, page_size).await?;
    if page.scope_is_empty && after == 0 && matches!(search.scope, SearchScope::Certificate(..)) {
        return Err(Rejection::CertificateNotFound.into());
    }
    if let SearchScope::Account(_) = search.scope {
        let found = page.events.iter().map(|event: &RecordedEvent| &event.instance_id);
        for id in found.collect::<BTreeSet<&InstanceId>>() {
            api.authorize_on(call, &api.find_instance(id).await?, ACTION)?;
        }
    }
    Ok(v1::ListCaCertificateEventsResponse {
        request_id: call.request_id.to_string(),
        events: page.events.into_iter().map(convert::ca_certificate_event).collect::<Result<_, _>>()?,
        next_page_token: page.next.map(|next| paging::token(&list, next)).unwrap_or_default(),
    })
}

fn search(fields: &mut Fields, request: &v1::ListCaCertificateEventsRequest) -> Option<TrustChangeSearch> {
    let scope = scope(fields, request);
    let types = types(fields, request);
    let actor = fields.actor("actor", &request.actor);
    let from = fields.time("occurred_from", request.occurred_from.as_ref());
    let until = fields.time("occurred_until", request.occurred_until.as_ref());
    Some(TrustChangeSearch {
        types: types?,
        actor: actor?,
        from: from?,
        until: until?,
        ..TrustChangeSearch::all(scope?)
    })
}

fn scope(fields: &mut Fields, request: &v1::ListCaCertificateEventsRequest) -> Option<SearchScope> {
    if request.account_id.is_empty() {
        let id = fields.instance_id(&request.mqtt_instance_id);
        let sn = fields.optional_sn(&request.sn);
        return Some(match (id?, sn?) {
            (id, None) => SearchScope::Instance(id),
            (id, Some(sn)) => SearchScope::Certificate(id, sn),
        });
    }
    let account = fields.account_id(&request.account_id);
    if !request.mqtt_instance_id.is_empty() {
        fields.complain("account_id", "cannot stand beside mqtt_instance_id: leave one of them out");
        return None;
    }
    if !request.sn.is_empty() {
        fields.complain("sn", "needs mqtt_instance_id: it means nothing outside an instance");
        return None;
    }
    account.map(SearchScope::Account)
}

/// The types that both filters, of type and of state, let through.
fn types(fields: &mut Fields, request: &v1::ListCaCertificateEventsRequest) -> Option<Vec<EventType>> {
    let state = fields.state(request.state);
    let known = |name: &String| EventType::trust_changes().any(|kind| kind.name() == name);
    if let Some(unknown) = request.event_types.iter().find(|name| !known(name)) {
        let names: Vec<&str> = EventType::trust_changes().map(EventType::name).collect();
        fields.complain("event_types", format!("{:?} is none of {}", shortened(unknown), names.join(", ")));
        return None;
    }
    let wanted = |kind: &EventType| {
        request.event_types.is_empty() || request.event_types.iter().any(|name| name == kind.name())
    };
    let outcome = match state? {
        v1::CaCertificateState::Unspecified => None,
        v1::CaCertificateState::Active => Some(TrustOutcome::Active),
        v1::CaCertificateState::Inactive => Some(TrustOutcome::Inactive),
    };
    let leads_to = |kind: &EventType| outcome.is_none() || kind.trust_outcome() == outcome;
    Some(EventType::trust_changes().filter(wanted).filter(leads_to).collect())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Names the list by all that is asked but the page: a token leads on in it alone.
fn list_name(request: &v1::ListCaCertificateEventsRequest) -> String {
    let asked =
        v1::ListCaCertificateEventsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    format!("events/{}", Sha256::of(&asked.encode_to_vec()))
}

async fn admit(api: &Api, call: &Call, scope: &SearchScope) -> Result<(), ApiError> {
    match scope {
        SearchScope::Certificate(id, _) | SearchScope::Instance(id) => {
            api.admit(call, id, ACTION).await.map(drop)
        }
        SearchScope::Account(account) => admit_to_account(api, call, account),
    }
}

/// Across an account nothing may be denied on any of its instances: a trail with silent
/// gaps would be worse than none. The directory may lag; what is found is checked again.
fn admit_to_account(api: &Api, call: &Call, account: &AccountId) -> Result<(), ApiError> {
    let everything = InstanceResource { region_id: None, account_id: Some(account), instance_id: None };
    api.authorize(call, ACTION, &everything)?;
    if !call.identity.operator && call.identity.account_id != *account {
        return Err(Rejection::NotOwner.into());
    }
    for instance in api.directory.all().iter().filter(|known| known.owner_account_id == *account) {
        api.authorize_on(call, instance, ACTION)?;
    }
    Ok(())
}
