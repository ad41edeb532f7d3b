//! SQLSTATE into [`StoreError`], by what the caller should do about it. The only
//! place that looks into an error of the driver.

use sqlx::Error;

use crate::StoreError;
use crate::damage::TAKEN;

/// Class of lock_not_available: the append lock was not got within `lock_timeout`.
const LOCK_TIMEOUT: &str = "55P03";

/// Says what an error of the driver means.
pub(super) fn store_error(error: Error) -> StoreError {
    match &error {
        Error::Configuration(reason) => StoreError::Unsuitable(format!("the address is wrong: {reason}")),
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed => StoreError::Unavailable(error.into()),
        Error::Database(database) => {
            let code = database.code().unwrap_or_default().into_owned();
            let message = database.message().to_owned();
            match database.constraint() {
                // A version or a revision that is taken: the read model is behind the log. But
                // for a position that is, since somebody appended without the lock.
                Some(taken) if code == "23505" && taken != "events_pkey" => {
                    StoreError::Corrupt { table: TAKEN, row: taken.to_owned(), reason: message }
                }
                _ => database_error(error, &code, message),
            }
        }
        _ => StoreError::Internal(error.into()),
    }
}

/// Whether the append lock was not got in time, so that another try is no use.
pub(super) fn is_lock_timeout(error: &Error) -> bool {
    matches!(error, Error::Database(database) if database.code().as_deref() == Some(LOCK_TIMEOUT))
}

/// SQLSTATE, appendix A of the Postgres manual.
fn database_error(error: Error, code: &str, message: String) -> StoreError {
    match code {
        // read_only_sql_transaction: a standby, in the middle of a failover.
        // 25P03, 25P04: this session was too slow, and its transaction is gone.
        "25006" | "25P03" | "25P04" | LOCK_TIMEOUT => StoreError::Unavailable(error.into()),
        // A position that is taken: somebody appended without the lock.
        // Nothing was recorded, and the next try sees it.
        "23505" => StoreError::Unavailable(error.into()),
        "3D000" | "3F000" | "42501" => StoreError::Unsuitable(message),
        "XX001" | "XX002" => StoreError::Corrupt { table: "database", row: code.into(), reason: message },
        _ => match code.get(..2) {
            // Connection, serialisation and deadlock, resources, operator, system.
            Some("08" | "40" | "53" | "57" | "58") => StoreError::Unavailable(error.into()),
            Some("28") => StoreError::Unsuitable(message),
            _ => StoreError::Internal(error.into()),
        },
    }
}
