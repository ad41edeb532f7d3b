//! Pages of certificates, events and instances, while rows change.

use anyhow::Context as _;
use catrust_proto::v1::{
    CaCertificateState, ListCaCertificateEventsRequest, ListCaCertificatesRequest,
    ListCaCertificatesResponse, ListInstancesRequest,
};
use catrust_tests::client::refused_field;
use catrust_tests::instance::TestInstance;

use crate::site::{Site, on_both_sites};

on_both_sites!(
    pages_stay_stable_while_rows_change,
    a_filter_counts_and_lists_one_state,
    page_sizes_have_bounds_and_tokens_belong_to_their_list,
    the_history_of_an_instance_is_paged_in_the_order_of_the_log,
    instances_are_paged,
);

async fn page(
    instance: &TestInstance,
    page_size: i32,
    page_token: &str,
    state: CaCertificateState,
) -> Result<ListCaCertificatesResponse, tonic::Status> {
    let request = ListCaCertificatesRequest {
        mqtt_instance_id: instance.id.clone(),
        page_size,
        page_token: page_token.to_owned(),
        state: state.into(),
    };
    Ok(instance.caller.ca.clone().list_ca_certificates(request).await?.into_inner())
}

fn names(page: &ListCaCertificatesResponse) -> Vec<String> {
    page.ca_certificates.iter().map(|certificate| certificate.sn.clone()).collect()
}

async fn with_certificates(site: &Site, count: usize) -> anyhow::Result<(TestInstance, Vec<String>)> {
    let instance = site.instance().await?;
    let mut registered = Vec::new();
    for _ in 0..count {
        registered.push(instance.new_ca().await?.sn);
    }
    Ok((instance, registered))
}

async fn pages_stay_stable_while_rows_change(site: &Site) -> anyhow::Result<()> {
    let any = CaCertificateState::Unspecified;
    let (instance, registered) = with_certificates(site, 7).await?;
    let first = page(&instance, 3, "", any).await?;
    assert_eq!(names(&first), registered[..3]);
    assert_eq!(first.total_size, 7);

    // Between the pages: one that was read leaves, one that comes leaves, one
    // changes its state, one is new.
    instance.delete(&registered[0]).await?;
    instance.delete(&registered[4]).await?;
    instance.inactivate(&registered[3]).await?;
    let late = instance.new_ca().await?;

    let second = page(&instance, 3, &first.next_page_token, any).await?;
    assert_eq!(names(&second), [&registered[3..4], &registered[5..7]].concat());
    let third = page(&instance, 3, &second.next_page_token, any).await?;
    assert_eq!(names(&third), [late.sn]);
    assert_eq!((third.next_page_token.as_str(), third.total_size), ("", 6));
    Ok(())
}

async fn a_filter_counts_and_lists_one_state(site: &Site) -> anyhow::Result<()> {
    let (instance, registered) = with_certificates(site, 5).await?;
    for sn in [&registered[1], &registered[3]] {
        instance.inactivate(sn).await?;
    }
    let off = page(&instance, 1, "", CaCertificateState::Inactive).await?;
    assert_eq!((names(&off), off.total_size), (vec![registered[1].clone()], 2));
    let rest = page(&instance, 1, &off.next_page_token, CaCertificateState::Inactive).await?;
    assert_eq!((names(&rest), rest.next_page_token.as_str()), (vec![registered[3].clone()], ""));
    let on = page(&instance, 0, "", CaCertificateState::Active).await?;
    assert_eq!((on.total_size, on.ca_certificates.len()), (3, 3));
    Ok(())
}

async fn page_sizes_have_bounds_and_tokens_belong_to_their_list(site: &Site) -> anyhow::Result<()> {
    let any = CaCertificateState::Unspecified;
    let (instance, registered) = with_certificates(site, 2).await?;
    for size in [-1, 101, i32::MIN, i32::MAX] {
        refused_field(page(&instance, size, "", any).await, "page_size")?;
    }
    for size in [0, 1, 100] {
        page(&instance, size, "", any).await?;
    }
    let token = page(&instance, 1, "", any).await?.next_page_token;
    refused_field(page(&instance, 1, &token, CaCertificateState::Active).await, "page_token")?;
    let elsewhere = site.instance().await?;
    refused_field(page(&elsewhere, 1, &token, any).await, "page_token")?;
    for wrong in ["x", "1", "AAAA", "!!", &"A".repeat(10_000), &format!("{token}A"), "\u{1F600}"] {
        refused_field(page(&instance, 1, wrong, any).await, "page_token")?;
    }
    let events = ListCaCertificateEventsRequest {
        mqtt_instance_id: instance.id.clone(),
        page_token: token,
        ..Default::default()
    };
    let mut client = instance.caller.ca.clone();
    refused_field(client.list_ca_certificate_events(events.clone()).await, "page_token")?;

    let of_all = ListCaCertificateEventsRequest { page_size: 1, page_token: String::new(), ..events };
    let token = client.list_ca_certificate_events(of_all.clone()).await?.into_inner().next_page_token;
    let of_one = ListCaCertificateEventsRequest { sn: registered[0].clone(), page_token: token, ..of_all };
    refused_field(client.list_ca_certificate_events(of_one).await, "page_token")?;
    Ok(())
}

async fn the_history_of_an_instance_is_paged_in_the_order_of_the_log(site: &Site) -> anyhow::Result<()> {
    let (instance, registered) = with_certificates(site, 2).await?;
    for sn in &registered {
        instance.inactivate(sn).await?;
        instance.activate(sn).await?;
    }
    let mut request = ListCaCertificateEventsRequest {
        mqtt_instance_id: instance.id.clone(),
        page_size: 4,
        ..Default::default()
    };
    let mut events = Vec::new();
    loop {
        let page = instance.caller.ca.clone().list_ca_certificate_events(request.clone()).await?.into_inner();
        assert!(page.events.len() <= 4);
        events.extend(page.events);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(events.is_sorted_by(|a, b| a.position < b.position));
    let time = |event: &catrust_proto::v1::CaCertificateEvent| {
        event.occurred_at.map(|at| (at.seconds, at.nanos)).context("no time")
    };
    for pair in events.windows(2) {
        assert!(time(&pair[0])? <= time(&pair[1])?, "time never runs backwards along the log");
    }
    Ok(())
}

async fn instances_are_paged(site: &Site) -> anyhow::Result<()> {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(site.instance().await?.id);
    }
    let mut client = site.operator()?.instances;
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListInstancesRequest { page_size: 1, page_token: token };
        let page = client.list_instances(request).await?.into_inner();
        seen.extend(page.instances.into_iter().map(|instance| instance.mqtt_instance_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(seen.ends_with(&ids), "{seen:?} ends with {ids:?}");
    let wrong = ListInstancesRequest { page_size: 101, ..Default::default() };
    refused_field(client.list_instances(wrong).await, "page_size")?;
    let wrong = ListInstancesRequest { page_token: "x".to_owned(), ..Default::default() };
    refused_field(client.list_instances(wrong).await, "page_token")?;
    Ok(())
}
