use catrust_domain::Timestamp;
use catrust_proto::v1 as proto;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::canonical::Signed as _;
use crate::contract::{SampleLog, key};
use crate::feed::BoxError;
use crate::message::{self, TrustPoint};

/// Signed messages of one instance: a bundle, the changes after it, a head.
fn messages() -> (proto::TrustBundle, Vec<proto::TrustChange>, proto::Head) {
    let (mut log, key) = (SampleLog::new(), key());
    let instance = log.register_instance("stored");
    let sn = log.register_certificate(&instance);
    let bundle = log.bundle(&instance);
    let point = TrustPoint {
        instance_id: instance.clone(),
        revision: bundle.revision,
        position: bundle.position,
        digest: bundle.digest,
    };
    let now = Timestamp::from_micros(1_800_000_000_123_456);
    let mut head = message::head(log.log_id(), &point, now);
    head.sign(&key).unwrap();
    let mut bundle = message::trust_bundle(log.log_id(), &bundle, now);
    bundle.sign(&key).unwrap();
    let before = log.events().len();
    for _ in 0..5 {
        log.toggle(&instance, &sn);
    }
    let mut changes = Vec::new();
    for event in &log.events()[before..] {
        let (_, mut change) = message::trust_change(log.log_id(), event).unwrap().unwrap();
        change.sign(&key).unwrap();
        changes.push(change);
    }
    (bundle, changes, head)
}

fn change(change: &proto::TrustChange) -> SavedMessage {
    SavedMessage::Change(Box::new(change.clone()))
}

/// A directory with a bundle, three changes and a head.
fn filled() -> (TempDir, SavedState, Vec<proto::TrustChange>) {
    let directory = tempfile::tempdir().unwrap();
    let (bundle, changes, head) = messages();
    let mut store = Store::open(directory.path()).unwrap();
    store.write(SavedMessage::Bundle(Box::new(bundle.clone()))).unwrap();
    for one in &changes[..3] {
        store.write(change(one)).unwrap();
    }
    store.write(SavedMessage::Head(Box::new(head.clone()))).unwrap();
    (directory, SavedState { bundle, changes: changes[..3].to_vec(), head: Some(head) }, changes)
}

/// Keys are not part of what a bundle begins anew, nor of what is put aside with it.
#[test]
fn a_key_set_is_kept_beside_the_rest_until_it_is_put_aside_itself() {
    let (directory, saved, _) = filled();
    let mut set = proto::KeySet {
        version: 3,
        issued_at: Some(message::timestamp(Timestamp::from_micros(1))),
        expires_at: Some(message::timestamp(Timestamp::from_micros(2))),
        ..proto::KeySet::default()
    };
    set.sign(&key()).unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.load_keys().unwrap(), None);
    store.write(SavedMessage::KeySet(Box::new(set.clone()))).unwrap();
    store.write(SavedMessage::Bundle(Box::new(saved.bundle))).unwrap();
    store.discard().unwrap();
    drop(store);
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!((store.load_keys().unwrap(), store.load().unwrap()), (Some(set), None));
    store.discard_keys().unwrap();
    store.discard_keys().unwrap();
    assert_eq!(store.load_keys().unwrap(), None);
    assert!(directory.path().join("keys.json.refused").exists());
    std::fs::write(directory.path().join("keys.json"), "{").unwrap();
    assert!(matches!(store.load_keys(), Err(StateFileError::Damaged { .. })));
}

/// A disk that fails for a while must not lose the keys to a new beginning.
#[test]
fn a_key_set_that_could_not_be_written_outlives_the_next_bundle() {
    let (directory, saved, _) = filled();
    let mut store = Store::open(directory.path()).unwrap();
    let in_the_way = directory.path().join("keys.json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(store.write(SavedMessage::KeySet(Box::default())).is_err());
    assert!(store.write(SavedMessage::Bundle(Box::new(saved.bundle))).is_err());
    std::fs::remove_dir(&in_the_way).unwrap();
    store.flush().unwrap();
    assert_eq!(store.load_keys().unwrap(), Some(proto::KeySet::default()));
}

fn load(directory: &TempDir) -> Result<Option<SavedState>, StateFileError> {
    Store::open(directory.path())?.load()
}

#[test]
fn what_is_written_is_read_after_a_restart_bit_by_bit() {
    let (directory, saved, _) = filled();
    assert_eq!(load(&directory).unwrap(), Some(saved));
}

#[test]
fn an_empty_directory_holds_nothing_and_is_made_where_it_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("new").join("state")).unwrap();
    assert_eq!(store.load().unwrap(), None);
}

#[test]
fn a_new_bundle_makes_the_changes_before_it_go() {
    let (directory, saved, changes) = filled();
    let mut store = Store::open(directory.path()).unwrap();
    store.load().unwrap();
    let next = proto::TrustBundle { revision: 9, ..saved.bundle.clone() };
    store.write(SavedMessage::Bundle(Box::new(next.clone()))).unwrap();
    store.write(change(&changes[4])).unwrap();
    drop(store);
    let expected = SavedState { bundle: next, changes: changes[4..].to_vec(), head: saved.head };
    assert_eq!(load(&directory).unwrap(), Some(expected));
}

#[test]
fn two_agents_do_not_share_a_directory() {
    let (directory, ..) = filled();
    let first = Store::open(directory.path()).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(StateFileError::InUse { .. })));
    drop(first);
    assert!(Store::open(directory.path()).is_ok());
}

#[test]
fn what_is_damaged_is_told_and_can_be_put_aside() {
    for (name, text) in [(BUNDLE, "{\"logId\":"), (CHANGES, "{}}\n"), (HEAD, "nonsense")] {
        let (directory, ..) = filled();
        fs::write(directory.path().join(name), text).unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let error = store.load().unwrap_err();
        assert!(matches!(&error, StateFileError::Damaged { path, .. } if path.ends_with(name)), "{error}");
        store.discard().unwrap();
        assert_eq!(store.load().unwrap(), None);
        let kept = fs::read_to_string(directory.path().join(format!("{name}.refused"))).unwrap();
        assert_eq!(kept, text);
        drop(store);
        assert_eq!(load(&directory).unwrap(), None);
    }
}

#[test]
fn a_disk_that_fails_is_caught_up_with_later_and_in_order() {
    let (directory, saved, changes) = filled();
    let mut store = Store::open(directory.path()).unwrap();
    store.load().unwrap();
    // A file that cannot be written, as on a full disk.
    let path = directory.path().join(CHANGES);
    let whole = std::mem::replace(&mut store.changes, File::open(&path).unwrap());
    for one in &changes[3..] {
        let error = store.write(change(one)).unwrap_err();
        assert!(matches!(error, StateFileError::Io { doing: "append to", .. }), "{error}");
    }
    store.changes = whole;
    // Half of the first one has reached the disk.
    fs::write(&path, [fs::read(&path).unwrap(), b"{\"logId\":\"0".to_vec()].concat()).unwrap();
    store.flush().unwrap();
    drop(store);
    assert_eq!(load(&directory).unwrap(), Some(SavedState { changes, ..saved }));
}

#[test]
fn a_failure_names_file_and_cause() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error: BoxError = Store::open(file.path()).unwrap_err().into();
    assert!(error.to_string().starts_with("cannot create "), "{error}");
    assert!(error.source().is_some());
}

proptest! {
    // Each case waits for the disk.
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// The power fails while a change is appended: any leading part of it is there.
    #[test]
    fn a_torn_append_loses_that_change_alone(part in any::<prop::sample::Index>()) {
        let (directory, saved, changes) = filled();
        let path = directory.path().join(CHANGES);
        let text = fs::read(&path).unwrap();
        let torn = line(&changes[3], &path).unwrap();
        let torn = &torn[..part.index(torn.len())];
        fs::write(&path, [&text[..], torn].concat()).unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        prop_assert_eq!(store.load().unwrap(), Some(saved.clone()));
        // And what is written next stands after a whole line.
        store.write(change(&changes[3])).unwrap();
        drop(store);
        let changes = changes[..4].to_vec();
        prop_assert_eq!(load(&directory).unwrap(), Some(SavedState { changes, ..saved }));
    }
}
