//! Promises of verification and rebuild.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use catrust_domain::read_model::{EventMeta, ReadModel};
use catrust_domain::{CommandEnvelope, InstanceId, SerialNumber};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;

use super::Fixture;
use super::appending::{assert_clean, read_all};
use super::commands::{
    activate, append_all, delete, facts, inactivate, instance, issue_code, populate, register,
    register_instance, unique_id, with_request_id,
};
use crate::report::Damage;
use crate::{
    BundleAt, EventLog as _, EventStore, Maintenance as _, ReadModelStore as _, StateFilter, StoreError,
};

/// Writes a log of nine events: the instance, two certificates with their codes, and
/// four changes of state at positions 6 to 9.
async fn nine_events<F: Fixture>(fixture: &F) -> (F::Store, InstanceId, Vec<SerialNumber>) {
    let store = fixture.open().await;
    let id = instance("checked");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let (a, b) = (&sns[0], &sns[1]);
    append_all(&store, &[inactivate(&id, a), inactivate(&id, b), activate(&id, a), inactivate(&id, a)]).await;
    assert_clean(&store).await;
    (store, id, sns)
}

async fn damage(store: &impl EventStore) -> Vec<Damage> {
    store.verify().await.expect("verification runs").damage
}

fn positions(damage: &[Damage]) -> Vec<Option<u64>> {
    damage.iter().map(|piece| piece.position).collect()
}

/// Nothing is found where nothing is wrong, and everything is counted.
pub async fn a_healthy_log_verifies_clean<F: Fixture>(fixture: &F) {
    let empty = fixture.open().await.verify().await.expect("verification runs");
    assert!(empty.is_clean() && empty.events == 0, "{empty:?}");
    let (store, _, _) = nine_events(fixture).await;
    let report = store.verify().await.expect("verification runs");
    assert_eq!((report.events, report.instances, report.certificates), (9, 1, 2));
    assert_eq!(report.head_hash, store.head().await.expect("the head").hash.to_string());
}

/// One byte of a payload is enough.
pub async fn a_changed_payload_is_named_by_its_position<F: Fixture>(fixture: &F) {
    let (store, _, _) = nine_events(fixture).await;
    let payload =
        format!("CAST(replace(CAST(payload AS text), 'lost laptop', 'lost iaptop') AS {})", F::PAYLOAD_TYPE);
    fixture.tamper(&format!("UPDATE events SET payload = {payload} WHERE position = 7")).await;
    let damage = damage(&store).await;
    assert_eq!(damage.first().and_then(|piece| piece.position), Some(7), "{damage:#?}");
    assert!(damage[1..].iter().all(|piece| piece.position.is_none()), "{damage:#?}");
}

/// A gap is told by the position that is missing.
pub async fn a_removed_row_is_named_by_its_position<F: Fixture>(fixture: &F) {
    let (store, _, _) = nine_events(fixture).await;
    fixture.tamper("DELETE FROM events WHERE position = 6").await;
    let damage = damage(&store).await;
    assert_eq!(positions(&damage), [Some(6)], "{damage:#?}");
    assert!(damage[0].description.contains("missing"), "{damage:#?}");
}

/// Rows in another order break the chain where they were swapped.
pub async fn two_swapped_rows_are_named_by_their_positions<F: Fixture>(fixture: &F) {
    let (store, _, _) = nine_events(fixture).await;
    for (from, to) in [(6, 1_000), (7, 6), (1_000, 7)] {
        fixture.tamper(&format!("UPDATE events SET position = {to} WHERE position = {from}")).await;
    }
    let found = positions(&damage(&store).await);
    assert!(found.contains(&Some(6)) && found.contains(&Some(7)), "{found:?}");
}

/// A log that lost its end is a valid log; only the read model knows better.
pub async fn a_cut_tail_is_told_by_the_read_model<F: Fixture>(fixture: &F) {
    let (store, id, _) = nine_events(fixture).await;
    fixture.tamper("DELETE FROM events WHERE position = 9").await;
    let damage = damage(&store).await;
    assert!(positions(&damage).iter().all(Option::is_none), "{damage:#?}");
    let named = format!("instance {id}: revision is 6, the log says 5");
    assert!(damage.iter().any(|piece| piece.description.starts_with(&named)), "{damage:#?}");
}

/// An event of the future is damage to this version, not something to skip.
pub async fn an_unknown_event_stops_the_fold_and_says_so<F: Fixture>(fixture: &F) {
    let (store, _, _) = nine_events(fixture).await;
    fixture.tamper("UPDATE events SET schema_version = 99 WHERE position = 8").await;
    let found = damage(&store).await;
    assert!(found.iter().all(|piece| piece.position == Some(8)), "{found:#?}");
    let told = |text: &str| found.iter().any(|piece| piece.description.contains(text));
    assert!(
        told("unknown event CaCertificateActivated version 99") && told("the fold stops here"),
        "{found:#?}"
    );
    fixture.tamper("UPDATE events SET instance_id = 'not a name' WHERE position = 4").await;
    let found = damage(&store).await;
    assert_eq!(found.first().and_then(|piece| piece.position), Some(4), "{found:#?}");
}

/// An edited row is named, with the field and both values.
pub async fn an_edited_read_model_is_named_by_row_and_field<F: Fixture>(fixture: &F) {
    let (store, id, sns) = nine_events(fixture).await;
    for (edit, named) in [
        (
            format!("UPDATE ca_certificates SET state_reason = 'x' WHERE sn = '{}'", sns[0]),
            format!("CA certificate {id}/{}: state_reason is \"x\", the log says \"lost laptop\"", sns[0]),
        ),
        ("UPDATE instances SET edition = 'STANDARD'".into(), format!("instance {id}: edition is Standard")),
        ("UPDATE spent_register_codes SET position = 1".into(), format!("register code {id}/")),
        (
            "UPDATE instances SET region_id = 'a b'".into(),
            format!("instance {id}: corrupt data in instances"),
        ),
    ] {
        fixture.execute(&edit).await.expect("the edit");
        let damage = damage(&store).await;
        assert!(damage.iter().any(|piece| piece.description.starts_with(&named)), "{named}: {damage:#?}");
        store.rebuild().await.expect("the rebuild");
        assert_clean(&store).await;
    }
}

/// Rows that the log does not have, and rows that it has and the read model has not.
pub async fn missing_and_surplus_rows_are_named<F: Fixture>(fixture: &F) {
    let (store, id, sns) = nine_events(fixture).await;
    for edit in [
        format!("UPDATE ca_certificates SET sn = 'AB' WHERE sn = '{}'", sns[0]),
        "UPDATE instances SET instance_id = 'renamed'".into(),
        "DELETE FROM spent_register_codes".into(),
    ] {
        fixture.execute(&edit).await.expect("the edit");
    }
    let damage = damage(&store).await;
    for named in [
        format!("instance {id} is missing"),
        "instance renamed: the log has no such instance".into(),
        format!("CA certificate {id}/{} is missing", sns[0]),
        format!("CA certificate {id}/AB: the log has no such CA certificate"),
        format!("spent register code {id}/"),
    ] {
        assert!(damage.iter().any(|piece| piece.description.starts_with(&named)), "{named}: {damage:#?}");
    }
    store.rebuild().await.expect("the rebuild");
    assert_clean(&store).await;
}

/// After a rebuild the read model is the folded log again, and the report says
/// which instances were wrong.
pub async fn rebuild_restores_an_edited_read_model<F: Fixture>(fixture: &F) {
    let (store, id, sns) = nine_events(fixture).await;
    let before = store.load_bundle(&id, BundleAt::Now).await.expect("the bundle");
    let report = store.rebuild().await.expect("the rebuild");
    assert_eq!((report.events, report.differing_instances), (9, vec![]));
    for edit in [
        "UPDATE instances SET bundle_digest = set_hash_of_nothing, revision = 4",
        "DELETE FROM spent_register_codes",
        &format!("DELETE FROM ca_certificates WHERE sn = '{}'", sns[1]),
    ] {
        let nothing = "(SELECT hash FROM events WHERE position = 1)";
        fixture.execute(&edit.replace("set_hash_of_nothing", nothing)).await.expect("the edit");
    }
    let report = store.rebuild().await.expect("the rebuild");
    assert_eq!(report.differing_instances, [id.to_string()]);
    assert_eq!((report.events, report.instances, report.certificates), (9, 1, 1));
    assert_clean(&store).await;
    assert_eq!(store.load_bundle(&id, BundleAt::Now).await.expect("the bundle"), before);
    append_all(&store, &[activate(&id, &sns[1])]).await;
    assert_clean(&store).await;
}

/// Appends go on during a rebuild, and what they wrote is in the rebuilt read model.
pub async fn rebuild_goes_on_beside_appends<F: Fixture>(fixture: &F) {
    let (store, id, sns) = nine_events(fixture).await;
    let store = Arc::new(store);
    fixture
        .execute(&format!("UPDATE ca_certificates SET ca_name = 'x' WHERE sn = '{}'", sns[1]))
        .await
        .expect("the edit");
    let writer = tokio::spawn({
        let (store, id, sn) = (Arc::clone(&store), id.clone(), sns[0].clone());
        async move {
            for _ in 0..40 {
                append_all(&*store, &[activate(&id, &sn), inactivate(&id, &sn)]).await;
            }
        }
    });
    let other = fixture.open().await;
    for _ in 0..3 {
        other.rebuild().await.expect("the rebuild");
    }
    writer.await.expect("the writer");
    assert_clean(&*store).await;
    assert_eq!(store.head().await.expect("the head").position, 89);
}

/// A log that does not fold cannot be what the read model is made from.
pub async fn rebuild_refuses_a_damaged_log<F: Fixture>(fixture: &F) {
    let (store, id, _) = nine_events(fixture).await;
    let before = store.find_instance(&id).await.expect("a read");
    fixture.tamper("DELETE FROM events WHERE position = 7").await;
    let rebuilt = store.rebuild().await;
    assert!(
        matches!(&rebuilt, Err(StoreError::Corrupt { table: "events", row, .. }) if row == "7"),
        "{rebuilt:?}"
    );
    assert_eq!(store.find_instance(&id).await.expect("a read"), before);
}

/// What a random script does to one of four certificates of one of two instances.
#[derive(Clone, Copy, Debug)]
enum Step {
    RegisterInstance,
    Register,
    Inactivate,
    Activate,
    Delete,
    Repeat,
}

fn step() -> impl Strategy<Value = (u8, u8, Step)> {
    let kind = prop_oneof![
        1 => Just(Step::RegisterInstance),
        4 => Just(Step::Register),
        4 => Just(Step::Inactivate),
        3 => Just(Step::Activate),
        2 => Just(Step::Delete),
        1 => Just(Step::Repeat),
    ];
    (0..2_u8, 0..4_u8, kind)
}

/// Whatever is asked for, in whatever batches, on whichever connection: the stored
/// read model is the fold of the log.
pub async fn after_random_commands_the_read_model_is_the_folded_log<F: Fixture>(fixture: &F) {
    let stores = Arc::new([fixture.open().await, fixture.open().await]);
    let runtime = Handle::current();
    let cases = AtomicU64::new(0);
    let run = tokio::task::spawn_blocking(move || {
        let scripts = prop::collection::vec(prop::collection::vec(step(), 1..20), 1..6);
        let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&scripts, |script| {
            let case = cases.fetch_add(1, Ordering::Relaxed);
            runtime.block_on(run_script(&stores, case, script));
            Ok(())
        })
    });
    run.await.expect("the runner").expect("every script");
}

async fn run_script<S: EventStore>(stores: &[S; 2], case: u64, script: Vec<Vec<(u8, u8, Step)>>) {
    let repeated = unique_id();
    for (turn, batch) in script.into_iter().enumerate() {
        let commands: Vec<CommandEnvelope> =
            batch.into_iter().flat_map(|step| commands(case, repeated, step)).collect();
        let results = stores[turn % 2].append(&commands).await.expect("the batch");
        assert_eq!(results.len(), commands.len());
    }
    assert_clean(&stores[0]).await;
    let mut model = ReadModel::new();
    for row in read_all(&stores[1]).await {
        let event = row.decode().expect("a known event");
        model.evolve(&EventMeta::from(&row), &event).expect("the log folds");
    }
    for folded in model.instances() {
        let stored = stores[0].find_instance(&folded.instance_id).await.expect("a read");
        assert_eq!(stored.as_ref(), Some(folded));
        let page = stores[0].list_certificates(&folded.instance_id, StateFilter::Any, 0, 100).await;
        for view in page.expect("a page").items {
            let sn = &view.certificate.facts.sn;
            assert_eq!(Some(&view.certificate), model.certificate(&folded.instance_id, sn));
            assert_eq!(view.same_key_sns, model.same_key_sns(&folded.instance_id, &view.certificate.facts));
        }
    }
    let stored = stores[0].list_instances(0, 1).await.expect("a page").total;
    assert_eq!(stored, model.instances().count() as u64);
}

/// Odd certificates share a key, so that there are twins.
fn commands(
    case: u64,
    repeated: uuid::Uuid,
    (id, certificate, step): (u8, u8, Step),
) -> Vec<CommandEnvelope> {
    let id = instance(&format!("random-{case}-{id}"));
    let key = if certificate % 2 == 1 { 1 } else { certificate };
    let facts = facts(&format!("{id}/{certificate}"), &format!("{id}/{key}"));
    match step {
        Step::RegisterInstance => vec![register_instance(&id)],
        Step::Register => {
            let code = unique_id().simple().to_string();
            vec![issue_code(&id, &code), register(&id, &facts, &code)]
        }
        Step::Inactivate => vec![inactivate(&id, &facts.sn)],
        Step::Activate => vec![activate(&id, &facts.sn)],
        Step::Delete => vec![delete(&id, &facts.sn)],
        Step::Repeat => {
            vec![with_request_id(inactivate(&id, &facts.sn), repeated, &format!("{id}/{certificate}"))]
        }
    }
}
