//! SQLite's result codes into [`StoreError`], by what the caller should do about it.

use sqlx::Error;

use crate::StoreError;
use crate::damage::TAKEN;

/// Says what an error of the driver means.
pub(super) fn store_error(error: Error) -> StoreError {
    match &error {
        Error::Configuration(reason) => StoreError::Unsuitable(format!("the file cannot be used: {reason}")),
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => {
            StoreError::Unavailable(error.into())
        }
        Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<i64>().ok()).unwrap_or(1);
            let message = database.message().to_owned();
            match code & 0xff {
                // BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL: another process holds
                // the file for long, or the machine has run out of something.
                5 | 6 | 7 | 9 | 10 | 13 => StoreError::Unavailable(error.into()),
                // CONSTRAINT: a version or a revision that is taken, since the read model is
                // behind the log; but for a position.
                19 if message.starts_with("UNIQUE") && !message.ends_with("events.position") => {
                    StoreError::Corrupt { table: TAKEN, row: code.to_string(), reason: message }
                }
                // PERM, READONLY, CANTOPEN, AUTH.
                3 | 8 | 14 | 23 => StoreError::Unsuitable(message),
                // CORRUPT, NOTADB.
                11 | 26 => StoreError::Corrupt { table: "database", row: code.to_string(), reason: message },
                _ => StoreError::Internal(error.into()),
            }
        }
        _ => StoreError::Internal(error.into()),
    }
}
