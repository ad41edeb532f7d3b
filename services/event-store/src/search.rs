//! Trust changes by what an auditor asks for: where, who, what, when.
//!
//! No index serves the filters, since each would cost every append. Instead a search
//! looks at a bounded stretch of the log at a time, in the order of positions, and says
//! where the next one begins. A time is found by bisection: it grows with the position.

use catrust_domain::event::EventType;
use catrust_domain::{AccountId, InstanceId, RecordedEvent, SerialNumber, Timestamp};

use crate::queries::{self, Query, queries};
use crate::row::{Row, StoredRow as _, corrupt, names_of};
use crate::rows::Rows;
use crate::{StoreError, reads};

/// Rows that a search looks at where nobody says otherwise: some 20 ms.
const STRETCH: u32 = 10_000;

/// Whose trust changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchScope {
    /// Those of one serial number of an instance, deleted certificates included.
    Certificate(InstanceId, SerialNumber),
    /// Those of an instance.
    Instance(InstanceId),
    /// Those of the instances that the account owns now.
    Account(AccountId),
}

/// Which trust changes to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustChangeSearch {
    /// Where.
    pub scope: SearchScope,
    /// Which types; none where empty.
    pub types: Vec<EventType>,
    /// By whom; by anybody where `None`.
    pub actor: Option<String>,
    /// From when on.
    pub from: Option<Timestamp>,
    /// Before when.
    pub until: Option<Timestamp>,
    /// Rows of the log to look at, at most; at least 1.
    pub stretch: u32,
}

impl TrustChangeSearch {
    /// Every trust change of a scope.
    #[must_use]
    pub fn all(scope: SearchScope) -> Self {
        let types = EventType::trust_changes().collect();
        Self { scope, types, actor: None, from: None, until: None, stretch: STRETCH }
    }
}

/// A stretch of the log, searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustChangePage {
    /// What was found, ascending; may be empty although more follows.
    pub events: Vec<RecordedEvent>,
    /// After which position to search on; `None` at the end.
    pub next: Option<u64>,
    /// Whether there was anything to look at, whatever the filters say of it.
    pub scope_is_empty: bool,
}

queries! { LIST:
    /// $2 position, $8 instance, $9 serial number.
    OF_CERTIFICATE = search("instance_id = $8 AND sn = $9 AND position > $2", "position", "");
    /// $2 revision, $8 instance.
    OF_INSTANCE = search("instance_id = $8 AND revision > $2", "revision", "");
    /// $2 position, $8 account.
    OF_ACCOUNT = search(
        "position > $2",
        "position",
        " AND instance_id IN (SELECT instance_id FROM instances WHERE owner_account_id = $8)",
    );
}

/// Looks at up to $1 rows that `scope` finds after $2, in the order of `order`, and gives
/// the first $3 of them that fit `filter`, actor $4 (anybody where empty), one of the types
/// $5 (each between spaces), and times from $6 on and before $7. Before each hit: rows
/// looked at, position and time of the last of them. One row at least.
fn search(scope: &str, order: &str, filter: &str) -> String {
    format!(
        "WITH stretch AS MATERIALIZED (SELECT position, instance_id, revision, event_type, actor, occurred_at \
         FROM events WHERE {scope} ORDER BY {order} LIMIT $1) \
         SELECT total.items, total.last_position, total.last_time, {} \
         FROM (SELECT count(*) AS items, max(position) AS last_position, max(occurred_at) AS last_time \
         FROM stretch) AS total LEFT JOIN (SELECT position FROM stretch WHERE revision IS NOT NULL \
         AND ($4 = '' OR actor = $4) AND $5 LIKE '% ' || event_type || ' %' \
         AND occurred_at >= $6 AND occurred_at < $7{filter} ORDER BY position LIMIT $3) AS hit ON true \
         LEFT JOIN events AS e ON e.position = hit.position ORDER BY e.position",
        names_of::<RecordedEvent>("e."),
    )
}

/// Columns before those of the event.
const BEFORE_EVENT: usize = 3;

/// Searches the stretch after position `after` for up to `limit` trust changes.
pub(crate) async fn trust_changes(
    db: &mut impl Rows,
    search: &TrustChangeSearch,
    after: u64,
    limit: u32,
) -> Result<TrustChangePage, StoreError> {
    let (query, start) = start(db, search, after).await?;
    let types: Vec<&str> = search.types.iter().map(|kind| kind.name()).collect();
    let types = format!(" {} ", types.join(" "));
    let mut binds = vec![
        search.stretch.into(),
        start.into(),
        // One more tells whether there is more.
        (u64::from(limit) + 1).into(),
        search.actor.as_deref().unwrap_or("").into(),
        (&types).into(),
        search.from.unwrap_or(Timestamp::FIRST).into(),
        search.until.unwrap_or(Timestamp::LAST).into(),
    ];
    match &search.scope {
        SearchScope::Certificate(id, sn) => binds.extend([id.into(), sn.into()]),
        SearchScope::Instance(id) => binds.push(id.into()),
        SearchScope::Account(id) => binds.push(id.into()),
    }
    let rows = db.rows(query, &binds).await?;
    page(&rows, search, limit as usize)
}

/// The statement of a scope, and after which position or revision it begins.
async fn start(
    db: &mut impl Rows,
    search: &TrustChangeSearch,
    after: u64,
) -> Result<(&'static Query, u64), StoreError> {
    let before = search.from.map(|from| Timestamp::from_micros(from.micros().saturating_sub(1)));
    Ok(match &search.scope {
        SearchScope::Certificate(..) => (&OF_CERTIFICATE, after),
        SearchScope::Instance(id) => {
            let by_position = [id.into(), after.into()];
            let by_position = reads::number(db, &queries::REVISION_AT_POSITION, &by_position).await?;
            let by_time = match before {
                Some(time) => {
                    reads::number(db, &queries::REVISION_AT_TIME, &[id.into(), time.into()]).await?
                }
                None => None,
            };
            (&OF_INSTANCE, by_position.max(by_time).unwrap_or(0))
        }
        SearchScope::Account(_) => {
            let by_time = match before {
                Some(time) => reads::number(db, &queries::POSITION_AT_TIME, &[time.into()]).await?,
                None => None,
            };
            (&OF_ACCOUNT, after.max(by_time.unwrap_or(0)))
        }
    })
}

fn page<R: Row>(rows: &[R], search: &TrustChangeSearch, limit: usize) -> Result<TrustChangePage, StoreError> {
    let whole = |reason| corrupt("events", &[], reason);
    let mut page = TrustChangePage { events: Vec::new(), next: None, scope_is_empty: true };
    let mut stretch_end = None;
    for row in rows {
        let looked_at: u64 = row.get(0).map_err(whole)?;
        page.scope_is_empty = looked_at == 0;
        if looked_at == u64::from(search.stretch) {
            let last = (row.get(1).map_err(whole)?, row.time(2).map_err(whole)?);
            stretch_end = Some(last).filter(|(_, time)| search.until.is_none_or(|until| *time < until));
        }
        if !row.is_null(BEFORE_EVENT).map_err(whole)? {
            page.events.push(RecordedEvent::read(row, BEFORE_EVENT)?);
        }
    }
    if page.events.len() > limit {
        page.events.truncate(limit);
        page.next = page.events.last().map(|event| event.position);
    } else {
        page.next = stretch_end.map(|(position, _)| position);
    }
    Ok(page)
}
