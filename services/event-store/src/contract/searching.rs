//! Promises of the search for trust changes.

use catrust_domain::event::EventType;
use catrust_domain::{AccountId, CommandEnvelope, InstanceId, RecordedEvent, SerialNumber};

use super::Fixture;
use super::appending::read_all;
use super::commands::{activate, append_all, delete, inactivate, instance, populate};
use crate::{EventStore, ReadModelStore as _, SearchScope, TrustChangePage, TrustChangeSearch};

/// Whether a row is in a scope.
type Filter<'a> = dyn Fn(&RecordedEvent) -> bool + 'a;

/// Three instances, of which one belongs to another account; two actors; ten seconds
/// between the batches.
async fn world<F: Fixture>(fixture: &F) -> (F::Store, [InstanceId; 3], Vec<SerialNumber>) {
    let store = fixture.open().await;
    let ids = ["one", "two", "foreign"].map(instance);
    let mut sns = Vec::new();
    for id in &ids {
        fixture.clock().advance(10);
        sns.push(populate(&store, id, &["a", "b"]).await.remove(0));
    }
    for (id, sn) in ids.iter().zip(&sns) {
        fixture.clock().advance(10);
        let mut by_other = activate(id, sn);
        by_other.context.actor = "somebody".to_owned();
        append_all(&store, &[inactivate(id, sn), by_other]).await;
    }
    let transfer = catrust_domain::Command::UpdateInstance {
        owner_account_id: Some(account("somebody-else")),
        edition: None,
    };
    let transfer = CommandEnvelope { command: transfer, ..inactivate(&ids[2], &sns[2]) };
    append_all(&store, &[delete(&ids[0], &sns[0]), transfer]).await;
    (store, ids, sns)
}

fn account(text: &str) -> AccountId {
    text.parse().expect("an account")
}

async fn search(
    store: &impl EventStore,
    search: &TrustChangeSearch,
    after: u64,
    limit: u32,
) -> TrustChangePage {
    store.search_trust_changes(search, after, limit).await.expect("a page")
}

/// Reads every page; checks that pages keep their limit and end.
async fn search_all(store: &impl EventStore, wanted: &TrustChangeSearch, limit: u32) -> Vec<RecordedEvent> {
    let (mut found, mut after) = (Vec::new(), 0);
    for _ in 0..1_000 {
        let page = search(store, wanted, after, limit).await;
        assert!(page.events.len() <= limit as usize);
        found.extend(page.events);
        match page.next {
            None => return found,
            Some(next) => {
                assert!(next > after, "a page leads on");
                after = next;
            }
        }
    }
    panic!("the pages have no end");
}

/// Whatever is asked, the pages hold exactly the rows of the log that fit, in its
/// order, however short a stretch or a page is.
pub async fn a_search_finds_what_a_look_at_every_row_finds<F: Fixture>(fixture: &F) {
    let (store, ids, sns) = world(fixture).await;
    let log = read_all(&store).await;
    let owner = store.find_instance(&ids[0]).await.expect("a read").expect("the instance").owner_account_id;
    let own = |event: &RecordedEvent| event.instance_id != ids[2];
    let scopes: [(SearchScope, &Filter<'_>); 4] = [
        (SearchScope::Account(owner), &own),
        (SearchScope::Account(account("somebody-else")), &|event| !own(event)),
        (SearchScope::Instance(ids[1].clone()), &|event| event.instance_id == ids[1]),
        (SearchScope::Certificate(ids[0].clone(), sns[0].clone()), &|event| {
            event.instance_id == ids[0] && event.sn.as_ref() == Some(&sns[0])
        }),
    ];
    let middle = log[log.len() / 2].occurred_at;
    let kinds = [
        EventType::trust_changes().collect(),
        vec![EventType::CaCertificateActivated, EventType::CaCertificateDeleted],
    ];
    let mut hits = 0;
    for (scope, in_scope) in &scopes {
        for types in &kinds {
            for actor in [None, Some("somebody".to_owned())] {
                for (from, until) in [(None, None), (Some(middle), None), (None, Some(middle))] {
                    let fits = |event: &&RecordedEvent| {
                        event.revision.is_some()
                            && in_scope(event)
                            && types.iter().any(|kind| kind.name() == event.event_type)
                            && actor.as_ref().is_none_or(|actor| *actor == event.actor)
                            && from.is_none_or(|from| event.occurred_at >= from)
                            && until.is_none_or(|until| event.occurred_at < until)
                    };
                    let expected: Vec<RecordedEvent> = log.iter().filter(fits).cloned().collect();
                    hits += expected.len();
                    for (stretch, limit) in [(10_000, 100), (1, 100), (3, 2), (10_000, 1)] {
                        let (scope, types, actor) = (scope.clone(), types.clone(), actor.clone());
                        let wanted = TrustChangeSearch { scope, types, actor, from, until, stretch };
                        assert_eq!(search_all(&store, &wanted, limit).await, expected, "{wanted:?}");
                    }
                }
            }
        }
    }
    assert!(hits > 50, "the log has something of everything: {hits}");
}

/// A page says whether there was anything to look at, and looks no further than the
/// end of its time.
pub async fn a_search_is_bounded<F: Fixture>(fixture: &F) {
    let (store, ids, sns) = world(fixture).await;
    let log = read_all(&store).await;
    let mut wanted =
        TrustChangeSearch { stretch: 2, ..TrustChangeSearch::all(SearchScope::Instance(ids[0].clone())) };
    wanted.actor = Some("nobody".to_owned());
    let page = search(&store, &wanted, 0, 10).await;
    assert!(page.events.is_empty() && !page.scope_is_empty && page.next.is_some(), "{page:?}");
    wanted.until = Some(log[0].occurred_at);
    let page = search(&store, &wanted, 0, 10).await;
    assert_eq!((page.events.len(), page.next), (0, None), "what follows is too late");
    let nothing = SearchScope::Certificate(ids[1].clone(), sns[0].clone());
    let page = search(&store, &TrustChangeSearch::all(nothing), 0, 10).await;
    assert!(page.scope_is_empty, "{page:?}");
}
