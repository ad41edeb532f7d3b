//! What one batch leaves in memory for the next, so that it need not be loaded again.
//!
//! Another replica, or a rebuild, may make it wrong at any time. So the end of the log
//! and the number of rebuilds are asked for under the append lock, each time: while
//! both are what they were, so is every row. Positions are dense and the end of the log
//! is named by its hash, hence nothing was appended, and only appends and rebuilds
//! write the read model.

use catrust_domain::read_model::ReadModel;
use catrust_domain::{LogEvidence, LogHead, Sha256, Timestamp};
use sqlx::postgres::PgRow;

use crate::StoreError;
use crate::ground::Look;
use crate::row::{Row as _, corrupt};

/// Most rows kept: some 16 MB with the largest usual certificates.
const MAX_ROWS: usize = 4_096;

/// Makes `EXECUTE log_end(position)` look where the log ends: `position, hash, generation, hash
/// of the newest row that begins an epoch, hash of the row at that position, state of the
/// evidence (see [`crate::ground::evidence_state`]), microseconds since 1970 by the database's
/// clock`, as text.
/// Prepared by name, since only so it can be in one message with other statements.
pub(super) const PREPARE_LOG_END: &str = "PREPARE log_end(bigint) AS \
     SELECT e.position::text, encode(e.hash, 'hex'), g.read_model_generation::text, \
     encode((SELECT hash FROM events WHERE event_type = 'LogEpochBegan' ORDER BY position DESC LIMIT 1), 'hex'), \
     encode((SELECT hash FROM events WHERE position = $1), 'hex'), \
     (SELECT count(*)::text || '/' || coalesce(max(number), 0)::text || '/' || coalesce(sum(number), 0)::text \
     FROM (SELECT number FROM log_evidence ORDER BY number DESC LIMIT 256) AS newest), \
     (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text \
     FROM log_identity AS g \
     LEFT JOIN (SELECT position, hash FROM events ORDER BY position DESC LIMIT 1) AS e ON true";

/// Where the log ends, and how often its read model has been rebuilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogEnd {
    position: u64,
    hash: Sha256,
    generation: u64,
}

impl LogEnd {
    /// Reads the row of `log_end`, which was asked for the position of `memory`, and when it was
    /// read by the clock of the database.
    pub(super) fn of(
        row: &PgRow,
        memory: Option<LogEvidence>,
    ) -> Result<(Self, Look, Timestamp), StoreError> {
        let number = |index| row.text(index)?.parse::<u64>().map_err(|error| error.to_string());
        let hash_at = |index| row.text(index)?.parse().map_err(|_| "a hash has 32 bytes".to_owned());
        let read = || {
            let (position, hash) =
                if row.is_null(0)? { (0, Sha256::ZERO) } else { (number(0)?, hash_at(1)?) };
            let hash_or_none =
                |index| Ok::<_, String>(if row.is_null(index)? { None } else { Some(hash_at(index)?) });
            let look = Look {
                end: LogHead { position, hash, ..LogHead::EMPTY },
                newest_begin: hash_or_none(3)?,
                memory: None,
                remembered: hash_or_none(4)?,
                evidence_state: row.text(5)?.to_owned(),
            };
            let micros = number(6)?.try_into().map_err(|_| "a time far away".to_owned())?;
            let end = Self { position, hash, generation: number(2)? };
            Ok((end, look, Timestamp::from_micros(micros)))
        };
        let (end, look, time) = read().map_err(|reason| corrupt("log_identity", &[], reason))?;
        Ok((end, Look { memory, ..look }, time))
    }
}

/// Rows as they were at an end of the log.
#[derive(Debug)]
pub(super) struct Memory {
    end: LogEnd,
    /// The same place, with its time.
    pub(super) head: LogHead,
    /// The rows; with each CA certificate every other of the same key.
    pub(super) model: ReadModel,
}

impl Memory {
    /// The rows after a batch that was committed onto `before` and ends at `head`. None
    /// where there are too many to be kept.
    pub(super) fn of(before: LogEnd, head: LogHead, model: ReadModel) -> Option<Self> {
        let end = LogEnd { position: head.position, hash: head.hash, ..before };
        (model.rows() <= MAX_ROWS).then_some(Self { end, head, model })
    }

    /// Whether the rows are still as they were.
    pub(super) fn holds(&self, end: &LogEnd) -> bool {
        self.end == *end
    }
}
