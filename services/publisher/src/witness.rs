//! What a feed that does not fit the log has to say before it is set aside: a message of this
//! log, by a key that is believed, which the log does not have, is a witness that the log was
//! set back.
//!
//! ```text
//! the log:    1 2 3 4
//! the feed:   1 2 3 4 5 6 x        5, 6 signed by a server, of this log and its epoch: set back
//!             1 2 3 4 x x          nothing but foreign messages: set it aside
//! ```
//!
//! Whoever has stolen a login to NATS can write anything into the feed, and is no witness; nor
//! can they hide one, since what they write comes after it.

use catrust_domain::{LogEpoch, LogEvidence, LogMark, Verdict};
use catrust_trust_feed::KeptMessage;

use crate::failure::PublishError;
use crate::known_keys::{KnownKeys, SignedRow};
use crate::{CHUNK, Publisher};

/// Messages that are looked at, at most.
const MOST_LOOKED_AT: usize = 10_000;

impl Publisher {
    /// Holds what the feed shows against the log.
    ///
    /// # Errors
    /// [`PublishError::SetBack`] where the log contradicts it; the store has noted it by then,
    /// so that no replica goes on acknowledging.
    pub(crate) async fn hear_witness(&self) -> Result<(), PublishError> {
        let parts = &self.parts;
        let keys = KnownKeys::new(&parts.key, parts.key_set.borrow().clone());
        let Some(row) = self.furthest_unknown(&keys).await? else { return Ok(()) };
        let evidence = LogEvidence {
            epoch: LogEpoch(row.epoch),
            mark: LogMark::Row { position: row.position, hash: row.event_hash },
            witness: "the NATS stream".to_owned(),
            seen_at: (parts.clock)(),
        };
        match parts.ground.accuse(&evidence).await? {
            Verdict::Agrees => Ok(()),
            Verdict::Ended => {
                tracing::warn!(%evidence, "the stream holds a history that has ended");
                Ok(())
            }
            Verdict::SetBack(contradiction) => {
                Err(PublishError::SetBack { reason: format!("{evidence}, and {contradiction}") })
            }
            Verdict::Superseded => Err(PublishError::SetBack {
                reason: format!("{evidence}, which is of a later history than this log"),
            }),
        }
    }

    /// The furthest row of this log that the feed shows by a signature, and that the log does not
    /// have. Looks at what is beyond the log, and back from there to the last row that is signed:
    /// its hash covers every row before it.
    async fn furthest_unknown(&self, keys: &KnownKeys) -> Result<Option<SignedRow>, PublishError> {
        let parts = &self.parts;
        let (tail, head) = (parts.feed.tail().await?.sequence, parts.log.head().await?.position);
        let (mut stretch, mut end) = (u64::from(CHUNK), u64::MAX);
        let (mut looked_at, mut beyond, mut last) = (0, None::<SignedRow>, None::<SignedRow>);
        let mut start = tail.min(head);
        while last.is_none() && start > 0 && looked_at < MOST_LOOKED_AT {
            start = start.saturating_sub(stretch);
            let mut sequence = start;
            while let Some(kept) = parts.feed.kept_after(sequence).await?
                && kept.sequence < end
                && looked_at < MOST_LOOKED_AT
            {
                (sequence, looked_at) = (kept.sequence, looked_at + 1);
                let Some(row) = self.row_of_this_log(keys, &kept) else { continue };
                // A message at another sequence than its own is somebody's repetition: of what
                // the log has, it says nothing.
                if row.position > head {
                    if beyond.as_ref().is_none_or(|best| best.is_before(&row)) {
                        beyond = Some(row);
                    }
                } else if row.position == sequence {
                    last = Some(row);
                }
            }
            (end, stretch) = (start + 1, stretch * 8);
        }
        if looked_at >= MOST_LOOKED_AT {
            tracing::error!(
                "the stream holds more than can be looked at; run `catrust-server verify --stream`"
            );
        }
        if beyond.is_some() {
            return Ok(beyond);
        }
        let Some(last) = last else { return Ok(None) };
        let rows = parts.log.read(last.position - 1, 1).await?;
        let has =
            rows.first().is_some_and(|row| row.position == last.position && row.hash == last.event_hash);
        Ok((!has).then_some(last))
    }

    fn row_of_this_log(&self, keys: &KnownKeys, kept: &KeptMessage) -> Option<SignedRow> {
        keys.signed_row(&kept.body).filter(|row| row.log_id == self.parts.log.log_id())
    }
}
