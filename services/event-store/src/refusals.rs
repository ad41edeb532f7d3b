//! Refused calls: a bounded table beside the log, which holds only what happened.

use catrust_domain::Timestamp;

use crate::StoreError;
use crate::columns::{Columns, corrupt, stored};
use crate::rows::{Bind, Rows};

/// Attempts that were refused alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When the first one was refused.
    pub first_at: Timestamp,
    /// When the last one was.
    pub last_at: Timestamp,
    /// How many there were.
    pub attempts: u64,
    /// Who called; empty where nobody knew.
    pub principal: String,
    /// Account of the caller; empty where nobody knew.
    pub account_id: String,
    /// What was called: `/package.Service/Method`.
    pub method: String,
    /// Code of the error table.
    pub code: String,
    /// What the first caller was told.
    pub message: String,
    /// Instance that the call named; empty where that was not known.
    pub instance_id: String,
    /// Where the call came from; empty where unknown.
    pub source_address: String,
    /// Request id of the first one.
    pub request_id: String,
}

/// Which refusals to list; an empty text means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalFilter {
    /// Account of the caller.
    pub account_id: String,
    /// Caller.
    pub principal: String,
    /// Code of the error table.
    pub code: String,
}

/// The columns, in the order of the table; the insert's parameters.
macro_rules! refusal_columns {
    () => {
        "first_at, last_at, attempts, principal, account_id, method, code, message, instance_id, \
         source_address, request_id"
    };
}

pub(crate) const INSERT: &str = concat!(
    "INSERT INTO refusals (",
    refusal_columns!(),
    ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
);

/// $1 principal, $2 how many of it stay.
pub(crate) const PRUNE_PRINCIPAL: &str = "DELETE FROM refusals WHERE principal = $1 AND refusal_id <= \
     (SELECT refusal_id FROM refusals WHERE principal = $1 ORDER BY refusal_id DESC LIMIT 1 OFFSET $2)";

/// $1 how many stay.
pub(crate) const PRUNE: &str = "DELETE FROM refusals WHERE refusal_id <= \
     (SELECT refusal_id FROM refusals ORDER BY refusal_id DESC LIMIT 1 OFFSET $1)";

/// $1 number, $2 account, $3 principal, $4 code, $5 limit.
const LIST: &str = concat!(
    "SELECT refusal_id, ",
    refusal_columns!(),
    " FROM refusals WHERE refusal_id < $1 AND ($2 = '' OR account_id = $2) AND ($3 = '' OR principal = $3)",
    " AND ($4 = '' OR code = $4) ORDER BY refusal_id DESC LIMIT $5"
);

/// Lists refusals before number `before`, the newest first, each with its number.
pub(crate) async fn list(
    db: &mut impl Rows,
    filter: &RefusalFilter,
    before: u64,
    limit: u32,
) -> Result<Vec<(u64, Refusal)>, StoreError> {
    let binds = [
        Bind::Number(stored(before)),
        Bind::Text(&filter.account_id),
        Bind::Text(&filter.principal),
        Bind::Text(&filter.code),
        Bind::Number(limit.into()),
    ];
    let rows = db.rows(LIST, &binds).await?;
    let key = |row: &_| [Columns::number(row, 0).map(|number| number.to_string())];
    rows.iter().map(|row| refusal(row).map_err(|reason| corrupt("refusals", &key(row), reason))).collect()
}

fn refusal(row: &impl Columns) -> Result<(u64, Refusal), String> {
    let refusal = Refusal {
        first_at: row.time(1)?,
        last_at: row.time(2)?,
        attempts: row.count(3)?,
        principal: row.owned(4)?,
        account_id: row.owned(5)?,
        method: row.owned(6)?,
        code: row.owned(7)?,
        message: row.owned(8)?,
        instance_id: row.owned(9)?,
        source_address: row.owned(10)?,
        request_id: row.owned(11)?,
    };
    Ok((row.count(0)?, refusal))
}
