//! Receipts by gRPC, on both ways to run catrust: what a broker says, and what follows.

use catrust_proto::v1::{Enforcement, GetPropagationRequest, ReportReceiptRequest, WatchPropagationRequest};
use catrust_tests::client::{refused as refused_call, refused_field};
use catrust_tests::instance::TestInstance;
use tonic::Code;

use super::broker::{applied, brokers, counts, only_broker, propagation, refused, report, report_applied};
use crate::site::{Site, on_both_sites};

on_both_sites!(
    a_broker_appears_with_its_first_receipt,
    late_and_repeated_receipts_are_contact_and_nothing_else,
    a_refusal_keeps_what_is_enforced_until_it_is_made_good,
    another_digest_counts_as_refused,
    a_revision_that_the_log_has_not_reached_does_not_stick,
    a_propagation_beyond_the_log_is_out_of_range,
    a_propagation_is_watched_until_nobody_is_pending,
    wrong_receipts_are_refused_with_the_field,
);

/// An instance at revision 2.
async fn instance(site: &Site) -> anyhow::Result<TestInstance> {
    let instance = site.instance().await?;
    instance.inactivate(&instance.new_ca().await?.sn).await?;
    Ok(instance)
}

async fn a_broker_appears_with_its_first_receipt(site: &Site) -> anyhow::Result<()> {
    let instance = instance(site).await?;
    assert_eq!(brokers(&instance).await?, []);
    assert_eq!(counts(&propagation(&instance, 0).await?), [0; 4]);
    for (name, revision) in [("late", 1), ("a-new_1", 2), ("cold", 0)] {
        report_applied(&instance, name, revision).await?;
    }
    let fleet = brokers(&instance).await?;
    let names: Vec<_> = fleet.iter().map(|b| (b.broker_id.as_str(), b.applied_revision)).collect();
    assert_eq!(names, [("a-new_1", 2), ("cold", 0), ("late", 1)]);
    for broker in &fleet {
        assert!(broker.digest_agrees && !broker.lost && !broker.refused, "{broker:?}");
        assert_eq!((broker.sessions_open, broker.sessions_cut), (40, 3));
        assert_eq!(broker.enforcement(), Enforcement::Tls);
        assert_eq!(broker.applied_at.map(|time| time.seconds), Some(1_772_366_400));
        assert!(broker.last_contact_at.is_some());
    }
    let current = propagation(&instance, 0).await?;
    assert_eq!((current.revision, counts(&current)), (2, [1, 2, 0, 0]));
    assert_eq!(current.pending_broker_ids, ["cold", "late"]);
    assert_eq!(current.mqtt_instance_id, instance.id);
    assert_eq!(counts(&propagation(&instance, 1).await?), [2, 1, 0, 0], "a later revision counts");
    Ok(())
}

async fn late_and_repeated_receipts_are_contact_and_nothing_else(site: &Site) -> anyhow::Result<()> {
    let instance = instance(site).await?;
    let newest = applied(&instance, "b", 2).await?;
    report(&instance, &newest).await?;
    let before = only_broker(&instance).await?;
    let mut late = applied(&instance, "b", 1).await?;
    late.sessions_open = 7;
    report(&instance, &late).await?;
    let after = only_broker(&instance).await?;
    assert!(
        after.last_contact_at.map(|t| (t.seconds, t.nanos))
            > before.last_contact_at.map(|t| (t.seconds, t.nanos))
    );
    let unchanged = catrust_proto::v1::Broker { last_contact_at: before.last_contact_at, ..after };
    assert_eq!(unchanged, before);
    let mut alive = newest.clone();
    (alive.sessions_cut, alive.sessions_open) = (0, 38);
    for _ in 0..3 {
        report(&instance, &alive).await?;
    }
    let again = only_broker(&instance).await?;
    assert_eq!((again.applied_revision, again.sessions_cut, again.sessions_open), (2, 3, 38));
    Ok(())
}

async fn a_refusal_keeps_what_is_enforced_until_it_is_made_good(site: &Site) -> anyhow::Result<()> {
    let instance = instance(site).await?;
    report_applied(&instance, "b", 1).await?;
    report(&instance, &refused(&instance, "b", 2, "the disk\nis full")).await?;
    let broker = only_broker(&instance).await?;
    assert_eq!((broker.applied_revision, broker.refused_revision, broker.refused), (1, 2, true));
    assert_eq!(broker.refusal, "the disk is full");
    assert_eq!((broker.sessions_open, broker.enforcement()), (41, Enforcement::Connect));
    let found = propagation(&instance, 2).await?;
    assert_eq!((counts(&found), found.refused_broker_ids), ([0, 0, 1, 0], vec!["b".to_owned()]));
    assert_eq!(counts(&propagation(&instance, 1).await?), [1, 0, 0, 0]);
    report_applied(&instance, "b", 2).await?;
    let broker = only_broker(&instance).await?;
    assert_eq!((broker.applied_revision, broker.refused), (2, false));
    assert_eq!(broker.refusal, "the disk is full", "it stays as history");
    assert_eq!(counts(&propagation(&instance, 2).await?), [1, 0, 0, 0]);
    Ok(())
}

async fn another_digest_counts_as_refused(site: &Site) -> anyhow::Result<()> {
    let instance = instance(site).await?;
    let mut wrong = applied(&instance, "b", 2).await?;
    wrong.bundle_digest = applied(&instance, "b", 1).await?.bundle_digest;
    report(&instance, &wrong).await?;
    let broker = only_broker(&instance).await?;
    assert!(!broker.digest_agrees && broker.applied_revision == 2, "{broker:?}");
    for revision in [1, 2] {
        let found = propagation(&instance, revision).await?;
        assert_eq!((counts(&found), found.refused_broker_ids), ([0, 0, 1, 0], vec!["b".to_owned()]));
    }
    report_applied(&instance, "b", 2).await?;
    assert_eq!(counts(&propagation(&instance, 2).await?), [1, 0, 0, 0]);
    Ok(())
}

/// A broker that follows another log, and a forged message that a broker refused: a
/// revision of the future would stand above everything that the broker says later.
async fn a_revision_that_the_log_has_not_reached_does_not_stick(site: &Site) -> anyhow::Result<()> {
    let instance = instance(site).await?;
    let mut elsewhere = applied(&instance, "b", 1).await?;
    elsewhere.revision = u64::MAX;
    report(&instance, &elsewhere).await?;
    let broker = only_broker(&instance).await?;
    assert!(!broker.digest_agrees && broker.applied_revision == 2, "{broker:?}");
    assert_eq!(counts(&propagation(&instance, 2).await?), [0, 0, 1, 0]);
    report_applied(&instance, "b", 2).await?;
    report(&instance, &refused(&instance, "b", 9, "the signature is wrong")).await?;
    let broker = only_broker(&instance).await?;
    assert!(broker.digest_agrees && !broker.refused, "{broker:?}");
    assert_eq!(broker.refusal, "the signature is wrong");
    assert_eq!(counts(&propagation(&instance, 2).await?), [1, 0, 0, 0]);
    instance.new_ca().await?;
    report_applied(&instance, "b", 3).await?;
    assert_eq!(counts(&propagation(&instance, 0).await?), [1, 0, 0, 0]);
    Ok(())
}

async fn a_propagation_beyond_the_log_is_out_of_range(site: &Site) -> anyhow::Result<()> {
    let instance = instance(site).await?;
    let mut fleet = instance.caller.fleet.clone();
    for revision in [3, u64::MAX] {
        let request = GetPropagationRequest { mqtt_instance_id: instance.id.clone(), revision };
        refused_call(fleet.get_propagation(request).await, Code::OutOfRange, "RevisionNotFound")?;
        let request = WatchPropagationRequest { mqtt_instance_id: instance.id.clone(), revision };
        refused_call(fleet.watch_propagation(request).await.map(drop), Code::OutOfRange, "RevisionNotFound")?;
    }
    let unknown = TestInstance { id: "no-such-instance".to_owned(), ..instance.clone() };
    let reply =
        fleet.get_propagation(GetPropagationRequest { mqtt_instance_id: unknown.id.clone(), revision: 0 });
    refused_call(reply.await, Code::NotFound, "MqttInstanceNotFound")?;
    let receipt =
        ReportReceiptRequest { mqtt_instance_id: unknown.id.clone(), ..applied(&instance, "b", 1).await? };
    refused_call(report(&unknown, &receipt).await, Code::NotFound, "MqttInstanceNotFound")?;
    Ok(())
}

async fn a_propagation_is_watched_until_nobody_is_pending(site: &Site) -> anyhow::Result<()> {
    let instance = instance(site).await?;
    for name in ["a", "b"] {
        report_applied(&instance, name, 1).await?;
    }
    let request = WatchPropagationRequest { mqtt_instance_id: instance.id.clone(), revision: 0 };
    let mut stream = instance.caller.fleet.clone().watch_propagation(request).await?.into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(std::time::Duration::from_secs(10), stream.message()).await??;
        anyhow::Ok(message.and_then(|message| message.propagation))
    };
    let first = next().await?.expect("the state at the beginning");
    assert_eq!((first.revision, counts(&first)), (2, [0, 2, 0, 0]));
    // Neither a sign of life nor a revision after the one that is watched is a change.
    report_applied(&instance, "a", 1).await?;
    instance.new_ca().await?;
    report_applied(&instance, "b", 3).await?;
    let second = next().await?.expect("the first broker");
    assert_eq!((second.revision, counts(&second)), (2, [1, 1, 0, 0]));
    assert_eq!(second.pending_broker_ids, ["a"]);
    report(&instance, &refused(&instance, "a", 2, "no")).await?;
    let last = next().await?.expect("the last broker");
    assert_eq!(counts(&last), [1, 0, 1, 0]);
    assert_eq!(next().await?, None, "the stream ends");
    Ok(())
}

async fn wrong_receipts_are_refused_with_the_field(site: &Site) -> anyhow::Result<()> {
    type Edit = fn(&mut ReportReceiptRequest);
    let instance = instance(site).await?;
    let good = applied(&instance, "b", 1).await?;
    let cases: [(&str, Edit); 8] = [
        ("mqtt_instance_id", |m| m.mqtt_instance_id = "a.b".to_owned()),
        ("broker_id", |m| m.broker_id = "*".to_owned()),
        ("broker_id", |m| m.broker_id = "x".repeat(65)),
        ("bundle_digest", |m| m.bundle_digest = "00".to_owned()),
        ("outcome", |m| m.outcome = 0),
        ("enforcement", |m| m.enforcement = 9),
        ("refusal", |m| m.refusal = "x".repeat(513)),
        ("applied_at", |m| m.applied_at = Some(catrust_proto::Timestamp { seconds: i64::MIN, nanos: 0 })),
    ];
    for (field, edit) in cases {
        let mut receipt = good.clone();
        edit(&mut receipt);
        refused_field(report(&instance, &receipt).await, field)?;
    }
    assert_eq!(brokers(&instance).await?, []);
    Ok(())
}
