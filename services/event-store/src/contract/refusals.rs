//! Promises about refused calls.

use super::Fixture;
use crate::{RefusalFilter, RefusalStore as _, RefusedCall};

fn refusal<F: Fixture>(fixture: &F, principal: &str, account: &str, code: &str) -> RefusedCall {
    let now = fixture.clock().now();
    RefusedCall {
        first_at: now,
        last_at: now.plus_seconds(1),
        attempts: 3,
        principal: principal.to_owned(),
        account_id: account.to_owned(),
        method: "/catrust.v1.CaCertificateService/InactivateCaCertificate".to_owned(),
        code: code.to_owned(),
        message: "no policy allows it".to_owned(),
        instance_id: "fleet".to_owned(),
        source_address: "192.0.2.7".to_owned(),
        request_id: "r-1".to_owned(),
    }
}

/// The newest come first, whole, page by page, and filters must all fit.
pub async fn refusals_are_listed_newest_first<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let (a, b) = (refusal(fixture, "alice", "one", "X"), refusal(fixture, "bob", "two", "Y"));
    store.record_refusals(&[a.clone(), b.clone()], 10).await.expect("recorded");
    store.record_refusals(std::slice::from_ref(&a), 10).await.expect("recorded");
    let list = async |filter: RefusalFilter, before, limit| {
        store.list_refusals(&filter, before, limit).await.expect("a page")
    };
    let all = list(RefusalFilter::default(), u64::MAX, 10).await;
    assert_eq!(all.iter().map(|(_, refusal)| refusal).collect::<Vec<_>>(), [&a, &b, &a]);
    let rest = list(RefusalFilter::default(), all[0].0, 1).await;
    assert_eq!(rest, all[1..2]);
    let text = |text: &str| text.to_owned();
    let of_two = RefusalFilter { account_id: text("two"), ..RefusalFilter::default() };
    assert_eq!(list(of_two.clone(), u64::MAX, 10).await, all[1..2]);
    assert_eq!(list(RefusalFilter { code: text("X"), ..of_two.clone() }, u64::MAX, 10).await, []);
    assert_eq!(list(RefusalFilter { principal: text("bob"), ..of_two }, u64::MAX, 10).await, all[1..2]);
}

/// Nobody has more than its share, so that nobody can push out the others, and all
/// together have a bound.
pub async fn refusals_are_bounded<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    store.record_refusals(&[refusal(fixture, "quiet", "a", "X")], 4).await.expect("recorded");
    let loud = vec![refusal(fixture, "loud", "a", "X"); 10];
    store.record_refusals(&loud, 4).await.expect("recorded");
    store.record_refusals(&loud, 4).await.expect("recorded");
    let names = async || {
        let all = store.list_refusals(&RefusalFilter::default(), u64::MAX, 100).await.expect("a page");
        all.into_iter().map(|(_, refusal)| refusal.principal).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["loud", "loud", "loud", "loud", "quiet"]);
    assert_eq!(store.prune_refusals(5).await.expect("pruned"), 0);
    assert_eq!(store.prune_refusals(3).await.expect("pruned"), 2);
    assert_eq!(names().await, ["loud", "loud", "loud"]);
}
