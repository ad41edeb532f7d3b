//! Promises of a log whose database was set back.

use catrust_domain::{EpochInForce, LogHead, RecordedEvent, Sha256};

use super::Fixture;
use super::appending::read_all;
use super::commands::{append_all, inactivate, instance, populate};
use crate::{EventLog as _, StoreError};

/// A reader that goes on from a row learns by the same read that the row is still there,
/// and otherwise that the log was set back.
pub async fn a_read_from_a_row_proves_that_the_row_is_there<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("followed");
    let sns = populate(&store, &id, &["a"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let rows = read_all(&store).await;
    let heads: Vec<LogHead> = rows.iter().map(RecordedEvent::head).collect();
    assert_eq!(store.read_from(&LogHead::EMPTY, 10).await.expect("a read"), rows);
    assert_eq!(store.read_from(&heads[1], 1).await.expect("a read"), rows[2..3]);
    assert_eq!(store.read_from(&heads[3], 10).await.expect("a read"), []);
    let other = LogHead { hash: Sha256::ZERO, ..heads[1] };
    let refused = store.read_from(&other, 10).await;
    assert!(
        matches!(&refused, Err(StoreError::SetBack { reason }) if reason.contains("another row")),
        "{refused:?}"
    );
    fixture.tamper("DELETE FROM events WHERE position > 2").await;
    for lost in &heads[2..] {
        let refused = store.read_from(lost, 10).await;
        assert!(
            matches!(&refused, Err(StoreError::SetBack { reason }) if reason.contains("not there any more")),
            "{refused:?}"
        );
    }
    assert_eq!(store.read_from(&heads[1], 10).await.expect("a read"), []);
    assert_eq!(*store.epoch().borrow(), EpochInForce::FIRST);
}
