//! Trust changes by what an auditor asks for: where, who, what, when.
//!
//! No index serves the filters, since each would cost every append. Instead a search
//! looks at a bounded stretch of the log at a time, in the order of positions, and says
//! where the next one begins. A time is found by bisection: it grows with the position.

use catrust_domain::{AccountId, InstanceId, RecordedEvent, SerialNumber, Timestamp};

use crate::columns::{self, Columns, corrupt, stored};
use crate::queries::{self, event_columns};
use crate::rows::{Bind, Rows};
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

/// A type of trust change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustChangeType {
    /// A CA certificate was registered.
    Registered,
    /// Trust in it was turned off.
    Inactivated,
    /// Trust in it was turned on again.
    Activated,
    /// It was forgotten.
    Deleted,
}

impl TrustChangeType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Registered, Self::Inactivated, Self::Activated, Self::Deleted];

    /// Name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "CaCertificateRegistered",
            Self::Inactivated => "CaCertificateInactivated",
            Self::Activated => "CaCertificateActivated",
            Self::Deleted => "CaCertificateDeleted",
        }
    }
}

/// Which trust changes to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustChangeSearch {
    /// Where.
    pub scope: SearchScope,
    /// Which types; none where empty.
    pub types: Vec<TrustChangeType>,
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
        let types = TrustChangeType::ALL.to_vec();
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

/// Looks at up to $1 rows that `$scope` finds after $2, in the order of `$order`, and
/// gives the first $3 of them that fit `$filter`, actor $4 (anybody where empty), one of
/// the types $5 to $8, and times from $9 on and before $10. Before each hit: rows looked
/// at, position and time of the last of them. One row at least.
macro_rules! search {
    ($scope:literal, $order:literal, $filter:literal) => {
        concat!(
            "WITH stretch AS MATERIALIZED (",
            "SELECT position, instance_id, revision, event_type, actor, occurred_at FROM events WHERE ",
            $scope,
            " ORDER BY ",
            $order,
            " LIMIT $1) SELECT total.items, total.last_position, total.last_time, ",
            event_columns!("e."),
            " FROM (SELECT count(*) AS items, max(position) AS last_position, max(occurred_at) AS last_time",
            " FROM stretch) AS total LEFT JOIN (SELECT position FROM stretch WHERE revision IS NOT NULL",
            " AND ($4 = '' OR actor = $4) AND event_type IN ($5, $6, $7, $8)",
            " AND occurred_at >= $9 AND occurred_at < $10",
            $filter,
            " ORDER BY position LIMIT $3) AS hit ON true LEFT JOIN events AS e ON e.position = hit.position",
            " ORDER BY e.position"
        )
    };
}

/// Columns before those of the event.
const BEFORE_EVENT: usize = 3;

/// $2 position, $11 instance, $12 serial number.
const OF_CERTIFICATE: &str = search!("instance_id = $11 AND sn = $12 AND position > $2", "position", "");
/// $2 revision, $11 instance.
const OF_INSTANCE: &str = search!("instance_id = $11 AND revision > $2", "revision", "");
/// $2 position, $11 account.
const OF_ACCOUNT: &str = search!(
    "position > $2",
    "position",
    " AND instance_id IN (SELECT instance_id FROM instances WHERE owner_account_id = $11)"
);

/// Searches the stretch after position `after` for up to `limit` trust changes.
pub(crate) async fn trust_changes(
    db: &mut impl Rows,
    search: &TrustChangeSearch,
    after: u64,
    limit: u32,
) -> Result<TrustChangePage, StoreError> {
    let (sql, start) = start(db, search, after).await?;
    let name = |index: usize| Bind::Text(search.types.get(index).map_or("", |kind| kind.name()));
    let mut binds = vec![
        Bind::Number(search.stretch.into()),
        Bind::Number(stored(start)),
        // One more tells whether there is more.
        Bind::Number(i64::from(limit) + 1),
        Bind::Text(search.actor.as_deref().unwrap_or("")),
        name(0),
        name(1),
        name(2),
        name(3),
        Bind::Time(search.from.unwrap_or(Timestamp::FIRST)),
        Bind::Time(search.until.unwrap_or(Timestamp::LAST)),
    ];
    match &search.scope {
        SearchScope::Certificate(id, sn) => binds.extend([Bind::Text(id.as_str()), Bind::Text(sn.as_str())]),
        SearchScope::Instance(id) => binds.push(Bind::Text(id.as_str())),
        SearchScope::Account(id) => binds.push(Bind::Text(id.as_str())),
    }
    let rows = db.rows(sql, &binds).await?;
    page(&rows, search, limit as usize)
}

/// The statement of a scope, and after which position or revision it begins.
async fn start(
    db: &mut impl Rows,
    search: &TrustChangeSearch,
    after: u64,
) -> Result<(&'static str, u64), StoreError> {
    let before = search.from.map(|from| Bind::Time(Timestamp::from_micros(from.micros().saturating_sub(1))));
    Ok(match &search.scope {
        SearchScope::Certificate(..) => (OF_CERTIFICATE, after),
        SearchScope::Instance(id) => {
            let id = Bind::Text(id.as_str());
            let by_position = [id, Bind::Number(stored(after))];
            let mut start =
                reads::number(db, queries::REVISION_AT_POSITION, &by_position).await?.unwrap_or(0);
            if let Some(before) = before {
                let by_time = reads::number(db, queries::REVISION_AT_TIME, &[id, before]).await?;
                start = start.max(by_time.unwrap_or(0));
            }
            (OF_INSTANCE, start)
        }
        SearchScope::Account(_) => {
            let by_time = match before {
                Some(before) => reads::number(db, queries::POSITION_AT_TIME, &[before]).await?,
                None => None,
            };
            (OF_ACCOUNT, after.max(by_time.unwrap_or(0)))
        }
    })
}

fn page<R: Columns>(
    rows: &[R],
    search: &TrustChangeSearch,
    limit: usize,
) -> Result<TrustChangePage, StoreError> {
    let whole = |reason| corrupt("events", &[], reason);
    let mut page = TrustChangePage { events: Vec::new(), next: None, scope_is_empty: true };
    let mut stretch_end = None;
    for row in rows {
        let looked_at = row.count(0).map_err(whole)?;
        page.scope_is_empty = looked_at == 0;
        if looked_at == u64::from(search.stretch) {
            let last = (row.count(1).map_err(whole)?, row.time(2).map_err(whole)?);
            stretch_end = Some(last).filter(|(_, time)| search.until.is_none_or(|until| *time < until));
        }
        if !row.is_null(BEFORE_EVENT).map_err(whole)? {
            page.events.push(columns::event(row, BEFORE_EVENT)?);
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
