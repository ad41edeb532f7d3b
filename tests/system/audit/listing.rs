//! `ListCaCertificateEvents` across an instance and an account, with filters.

use anyhow::Context as _;
use catrust_proto::v1::{CaCertificateEvent, CaCertificateState, ListCaCertificateEventsRequest};
use catrust_tests::client::{Caller, refused, refused_field};
use catrust_tests::deployment::{ACCOUNT, Identity, OPERATOR, OWNER, Plan};
use catrust_tests::instance::TestInstance;
use tonic::{Code, Status};

use super::catrust;
use crate::site::{Site, on_both_sites};

on_both_sites!(
    an_account_has_the_events_of_all_its_instances_in_the_order_of_the_log,
    each_filter_leaves_what_it_names,
    each_event_says_who_by_which_policy_from_where_why_and_under_which_request,
    filters_that_mean_nothing_are_refused_by_name,
);

/// Every page of what is asked, two events a page.
async fn list(
    caller: &Caller,
    mut request: ListCaCertificateEventsRequest,
) -> Result<Vec<CaCertificateEvent>, Status> {
    let mut events = Vec::new();
    request.page_size = 2;
    loop {
        let page = caller.ca.clone().list_ca_certificate_events(request.clone()).await?.into_inner();
        events.extend(page.events);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(events);
        }
    }
}

fn of_account(account: &str) -> ListCaCertificateEventsRequest {
    ListCaCertificateEventsRequest { account_id: account.to_owned(), ..Default::default() }
}

fn of_instance(instance: &TestInstance) -> ListCaCertificateEventsRequest {
    ListCaCertificateEventsRequest { mqtt_instance_id: instance.id.clone(), ..Default::default() }
}

/// Two instances, changed in turns: registered, inactivated, activated each.
async fn two_instances(site: &Site) -> anyhow::Result<[TestInstance; 2]> {
    let instances = [site.instance().await?, site.instance().await?];
    let mut sns = Vec::new();
    for instance in &instances {
        sns.push(instance.new_ca().await?.sn);
    }
    for (instance, sn) in instances.iter().zip(&sns) {
        instance.inactivate(sn).await?;
    }
    for (instance, sn) in instances.iter().zip(&sns) {
        instance.activate(sn).await?;
    }
    Ok(instances)
}

fn types(events: &[CaCertificateEvent]) -> Vec<&str> {
    events.iter().map(|event| event.event_type.trim_start_matches("CaCertificate")).collect()
}

async fn an_account_has_the_events_of_all_its_instances_in_the_order_of_the_log(
    site: &Site,
) -> anyhow::Result<()> {
    let [one, other] = two_instances(site).await?;
    let owner = site.owner()?;
    let events = list(&owner, of_account(site.account())).await?;
    assert!(events.is_sorted_by(|a, b| a.position < b.position));
    let places: Vec<&str> = events.iter().map(|event| event.mqtt_instance_id.as_str()).collect();
    assert_eq!(places, [&one.id, &other.id, &one.id, &other.id, &one.id, &other.id]);
    let mut apart = list(&owner, of_instance(&one)).await?;
    apart.extend(list(&owner, of_instance(&other)).await?);
    apart.sort_by_key(|event| event.position);
    assert_eq!(apart, events);
    Ok(())
}

async fn each_filter_leaves_what_it_names(site: &Site) -> anyhow::Result<()> {
    let [one, _] = two_instances(site).await?;
    let owner = site.owner()?;
    let whole = list(&owner, of_account(site.account())).await?;
    for base in [of_account(site.account()), of_instance(&one)] {
        let all = list(&owner, base.clone()).await?;
        let asked = async |request| list(&owner, request).await;
        let switched_off = ListCaCertificateEventsRequest {
            event_types: vec!["CaCertificateInactivated".to_owned()],
            ..base.clone()
        };
        let found = asked(switched_off).await?;
        assert!(!found.is_empty() && types(&found).iter().all(|kind| *kind == "Inactivated"), "{found:#?}");
        let active = CaCertificateState::Active.into();
        let found = asked(ListCaCertificateEventsRequest { state: active, ..base.clone() }).await?;
        assert_eq!(found.len() * 3, all.len() * 2, "registered and activated, not inactivated");
        assert!(found.iter().all(|event| event.state() == CaCertificateState::Active));
        let both = ListCaCertificateEventsRequest {
            event_types: vec!["CaCertificateInactivated".to_owned()],
            state: active,
            ..base.clone()
        };
        assert_eq!(asked(both).await?, [], "filters must all fit");
        let actor = all[0].actor.clone();
        let by = |actor: &str| ListCaCertificateEventsRequest { actor: actor.to_owned(), ..base.clone() };
        assert_eq!(asked(by(&actor)).await?, all);
        assert_eq!(asked(by(&actor[..actor.len() - 1])).await?, []);
        let middle = whole[3].occurred_at.context("a time")?;
        let since = ListCaCertificateEventsRequest { occurred_from: Some(middle), ..base.clone() };
        let before = ListCaCertificateEventsRequest { occurred_until: Some(middle), ..base.clone() };
        let (before, since) = (asked(before).await?, asked(since).await?);
        assert!(!before.is_empty() && !since.is_empty());
        assert_eq!([before, since].concat(), all, "a time parts the list in two");
    }
    Ok(())
}

async fn each_event_says_who_by_which_policy_from_where_why_and_under_which_request(
    site: &Site,
) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let mut request = instance.inactivation(&ca.sn);
    request.request_id = "3f1c9e0a-1111-4222-8333-444455556666".to_owned();
    request.reason = "the key leaked".to_owned();
    instance.caller.ca.clone().inactivate_ca_certificate(request).await?;
    let events = list(&instance.caller, of_instance(&instance)).await?;
    assert_eq!(types(&events), ["Registered", "Inactivated"]);
    let event = &events[1];
    assert_eq!(event.request_id, "3f1c9e0a-1111-4222-8333-444455556666");
    assert_eq!((event.reason.as_str(), event.sn.as_str()), ("the key leaked", ca.sn.as_str()));
    assert_eq!((event.source_address.as_str(), event.account_id.as_str()), ("127.0.0.1", site.account()));
    assert!(
        !event.actor.is_empty() && !event.policy_version.is_empty() && event.event_hash.len() == 64,
        "{event:?}"
    );
    assert_eq!(event.bundle_digest, instance.bundle().await?.bundle_digest);
    Ok(())
}

async fn filters_that_mean_nothing_are_refused_by_name(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let mut client = site.owner()?.ca;
    let valid = of_instance(&instance);
    let time = |seconds, nanos| Some(catrust_proto::Timestamp { seconds, nanos });
    let valid_account = of_account(site.account());
    for (field, request) in [
        ("account_id", ListCaCertificateEventsRequest { account_id: "a".to_owned(), ..valid.clone() }),
        ("account_id", of_account("a b")),
        ("sn", ListCaCertificateEventsRequest { sn: "01".to_owned(), ..valid_account.clone() }),
        ("actor", ListCaCertificateEventsRequest { actor: "a".repeat(1_025), ..valid.clone() }),
        ("actor", ListCaCertificateEventsRequest { actor: "a\n".to_owned(), ..valid.clone() }),
        (
            "event_types",
            ListCaCertificateEventsRequest { event_types: vec!["Inactivated".to_owned()], ..valid.clone() },
        ),
        ("state", ListCaCertificateEventsRequest { state: 9, ..valid.clone() }),
        ("occurred_from", ListCaCertificateEventsRequest { occurred_from: time(0, 1), ..valid.clone() }),
        (
            "occurred_until",
            ListCaCertificateEventsRequest { occurred_until: time(i64::MAX, 0), ..valid.clone() },
        ),
        ("mqtt_instance_id", ListCaCertificateEventsRequest::default()),
    ] {
        refused_field(client.list_ca_certificate_events(request).await, field)?;
    }
    let first = ListCaCertificateEventsRequest { page_size: 1, ..valid.clone() };
    instance.new_ca().await?;
    instance.new_ca().await?;
    let token = client.list_ca_certificate_events(first.clone()).await?.into_inner().next_page_token;
    let other = ListCaCertificateEventsRequest { actor: "x".to_owned(), page_token: token.clone(), ..first };
    refused_field(client.list_ca_certificate_events(other).await, "page_token")?;
    let same = ListCaCertificateEventsRequest { page_size: 100, page_token: token, ..valid };
    assert_eq!(client.list_ca_certificate_events(same).await?.into_inner().events.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_listed_for_itself_and_for_operators_and_only_where_nothing_is_denied()
-> anyhow::Result<()> {
    let on = |resource: &str| {
        format!(
            "{{\"Version\": \"1\", \"Principal\": \"principal-of-some\", \"Statement\": [{{\"Effect\": \"Allow\", \
             \"Action\": \"mq:*\", \"Resource\": \"{resource}\"}}]}}"
        )
    };
    let plan = Plan { nats: None, ..Plan::default() }
        .identity(Identity::with_token("stranger", "account-b", &[]))
        .identity(Identity::with_token("some", ACCOUNT, &[]))
        .policy("account-b/all.cedar", "permit(principal, action, resource);")
        .policy(&format!("{ACCOUNT}/some.json"), &on("acs:mq:*:*:mqtt-*"));
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    instance.new_ca().await?;
    let as_caller = |token: &str| replica.server.caller(Some(token));
    for token in [OWNER, OPERATOR] {
        assert_eq!(list(&as_caller(token)?, of_account(ACCOUNT)).await?.len(), 1, "{token}");
    }
    let foreign = list(&as_caller("stranger")?, of_account(ACCOUNT)).await;
    refused(foreign, Code::PermissionDenied, "MqttOwnerCheckError")?;
    assert_eq!(list(&as_caller("stranger")?, of_account("account-b")).await?, []);
    // Who may look at each instance may not look at all of them by that.
    assert_eq!(list(&as_caller("some")?, of_instance(&instance)).await?.len(), 1);
    let narrow = list(&as_caller("some")?, of_account(ACCOUNT)).await;
    refused(narrow, Code::PermissionDenied, "PermissionCheckFailed")?;
    // One instance denied: no list with a hole in it.
    let hidden = replica.instance().await?;
    let deny = format!(
        "permit(principal, action, resource);\nforbid(principal, action, resource) when {{ resource.instance == \"{}\" }};",
        hidden.id
    );
    let before = crate::permission::version(&replica).await?;
    deployment.policies().write(&format!("{ACCOUNT}/some.cedar"), &deny)?;
    crate::permission::another_version(&replica, &before).await?;
    let holed = list(&as_caller(OWNER)?, of_account(ACCOUNT)).await;
    refused(holed, Code::PermissionDenied, "PermissionCheckFailed")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_lists_for_people_and_for_scripts() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    instance.inactivate(&ca.sn).await?;
    let run = async |arguments: &[&str]| {
        let line = [&["audit", "list"], arguments].concat();
        catrust(replica.server.address(), Some(OWNER), &line).await
    };
    let table = run(&["--account", ACCOUNT, "--event-type", "inactivated"]).await?.success()?.stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2, "{table}");
    for cell in [&instance.id, &ca.sn, "Inactivated", "principal-of-owner-token", "127.0.0.1", "a test"] {
        assert!(rows[1].contains(cell), "{cell}: {table}");
    }
    let json = run(&["--instance", &instance.id, "--state", "active", "-o", "json"]).await?.success()?.stdout;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json["events"].as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(run(&["--instance", "no-such"]).await?.code, Some(1));
    assert_eq!(run(&[]).await?.code, Some(2));
    Ok(())
}
