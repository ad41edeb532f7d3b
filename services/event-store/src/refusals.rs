//! Refused calls: a bounded table beside the log, which holds only what happened.

use std::collections::BTreeSet;

use catrust_domain::Timestamp;

use crate::StoreError;
use crate::queries::queries;
use crate::row::{Row, StoredRow as _, corrupt, names_of};
use crate::rows::Rows;

/// Attempts that were refused alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCall {
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

queries! { LIST_OF_REFUSALS:
    /// What [`RefusedCall`] writes.
    INSERT = {
        let places: Vec<String> = (1..=RefusedCall::WIDTH).map(|number| format!("${number}")).collect();
        format!("INSERT INTO refusals ({}) VALUES ({})", names_of::<RefusedCall>(""), places.join(", "))
    };

    /// $1 principal, $2 how many of it stay.
    PRUNE_PRINCIPAL = "DELETE FROM refusals WHERE principal = $1 AND refusal_id <= \
         (SELECT refusal_id FROM refusals WHERE principal = $1 ORDER BY refusal_id DESC LIMIT 1 OFFSET $2)";

    /// $1 how many stay.
    PRUNE = "DELETE FROM refusals WHERE refusal_id <= \
         (SELECT refusal_id FROM refusals ORDER BY refusal_id DESC LIMIT 1 OFFSET $1)";

    /// $1 number, $2 account, $3 principal, $4 code, $5 limit.
    LIST = format!(
        "SELECT refusal_id, {} FROM refusals WHERE refusal_id < $1 AND ($2 = '' OR account_id = $2) \
         AND ($3 = '' OR principal = $3) AND ($4 = '' OR code = $4) ORDER BY refusal_id DESC LIMIT $5",
        names_of::<RefusedCall>(""),
    );
}

/// Records refusals, and forgets of each caller among them all but the newest. `db` MUST be
/// in a transaction.
pub(crate) async fn record(
    db: &mut impl Rows,
    refusals: &[RefusedCall],
    kept_per_caller: u64,
) -> Result<(), StoreError> {
    for refusal in refusals {
        db.execute(&INSERT, &refusal.values()).await?;
    }
    let callers: BTreeSet<&String> = refusals.iter().map(|refusal| &refusal.principal).collect();
    for caller in callers {
        db.execute(&PRUNE_PRINCIPAL, &[caller.into(), kept_per_caller.into()]).await?;
    }
    Ok(())
}

/// Lists refusals before number `before`, the newest first, each with its number.
pub(crate) async fn list(
    db: &mut impl Rows,
    filter: &RefusalFilter,
    before: u64,
    limit: u32,
) -> Result<Vec<(u64, RefusedCall)>, StoreError> {
    let binds = [
        before.into(),
        (&filter.account_id).into(),
        (&filter.principal).into(),
        (&filter.code).into(),
        limit.into(),
    ];
    let rows = db.rows(&LIST, &binds).await?;
    rows.iter().map(numbered).collect()
}

fn numbered(row: &impl Row) -> Result<(u64, RefusedCall), StoreError> {
    let number: Result<u64, String> = row.get(0);
    let refusal = number.clone().and_then(|number| Ok((number, RefusedCall::parse(row, 1)?)));
    refusal.map_err(|reason| corrupt(RefusedCall::TABLE, &[number.map(|number| number.to_string())], reason))
}
