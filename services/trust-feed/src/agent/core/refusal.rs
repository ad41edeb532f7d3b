//! Why the core turned something down.

use std::collections::HashMap;
use std::time::Duration;

use catrust_domain::log_epoch::spell_revision;
use catrust_domain::{LogEpoch, Sha256};
use catrust_signing::KeySetError;

use super::HeadRefusal;
use crate::bundle::TrustError;
use crate::canonical::{KeyRefusal, VerifyError};
use crate::parse::InvalidMessage;

/// Longest text of a refusal in a receipt, in characters.
pub const MAX_REFUSAL_LENGTH: usize = 512;
/// How often one kind of refusal is told: somebody may send refused messages without
/// end, and each is answered with a receipt.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Why a message, or the saved state, was turned down. What is enforced stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageRefusal {
    /// The text is no message of the feed.
    #[error("a message cannot be read")]
    Unreadable,
    /// The signature is missing, false, or by a key that is not to be believed.
    #[error("a message is not signed by a key that is believed")]
    NotVerified(#[from] VerifyError),
    /// A key set that is not to be used.
    #[error("a key set was refused")]
    KeySet(#[from] KeySetError),
    /// Signed, and not to be believed all the same.
    #[error("a signed message was refused")]
    NotTrusted(#[from] TrustError),
    /// Signed, with fields that cannot be read.
    #[error("a signed message is malformed")]
    Malformed(#[from] InvalidMessage),
    /// A head whose time proves nothing.
    #[error("a head was refused")]
    Head(#[from] HeadRefusal),
    /// The log of the server ends before what this agent has already enforced: a database
    /// was restored from a backup, or a server shows an old one.
    #[error(
        "the log is at {}, and this agent has {}: it was rolled back",
        spell_revision(*revision),
        spell_revision(*enforced)
    )]
    LogRolledBack {
        /// Revision of the head.
        revision: u64,
        /// Revision of the state.
        enforced: u64,
    },
    /// A log epoch that begins in the future: a stolen key must not outrank all that the log
    /// will say for years. Or this machine's clock is behind.
    #[error(
        "log epoch {epoch} begins {ahead:?} in the future: the clock of this machine is behind, or the \
         message is not to be believed"
    )]
    EpochAhead {
        /// The epoch.
        epoch: LogEpoch,
        /// How far ahead.
        ahead: Duration,
    },
    /// A head from the disk is ahead of the changes from the disk: some are missing.
    #[error("the saved state lacks changes: its head is at {}", spell_revision(*revision))]
    SavedStateTruncated {
        /// Revision of the saved head.
        revision: u64,
    },
    /// A saved change is not the next one.
    #[error("the saved changes have a gap before {}", spell_revision(*revision))]
    SavedStateGap {
        /// Revision of the change behind the gap.
        revision: u64,
    },
    /// The enforcer could not do it.
    #[error("{reason}")]
    NotApplied {
        /// What it says.
        reason: String,
    },
    /// The state cannot be written.
    #[error("the state cannot be written to disk: {reason}")]
    NotPersisted {
        /// What the system says.
        reason: String,
    },
}

impl MessageRefusal {
    /// The whole chain of causes as one text, at most [`MAX_REFUSAL_LENGTH`] characters.
    #[must_use]
    pub fn text(&self) -> String {
        catrust_domain::error_chain(self).chars().take(MAX_REFUSAL_LENGTH).collect()
    }

    /// A word for each kind, for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::NotVerified(VerifyError::Unsigned) => "unsigned",
            Self::NotVerified(VerifyError::UnknownKey { .. }) => "unknown_key",
            Self::NotVerified(VerifyError::BadSignature) => "bad_signature",
            Self::NotVerified(VerifyError::NotCanonical(_)) => "not_canonical",
            Self::NotVerified(VerifyError::UnusableKey { reason, .. }) => match reason {
                KeyRefusal::Revoked => "key_revoked",
                KeyRefusal::NotYetValid { .. } => "key_not_yet_valid",
                KeyRefusal::Expired { .. } => "key_expired",
                KeyRefusal::SetExpired { .. } => "key_set_expired",
            },
            Self::KeySet(KeySetError::Rollback { .. }) => "key_set_rollback",
            Self::KeySet(KeySetError::Forked { .. }) => "key_set_forked",
            Self::KeySet(KeySetError::Expired { .. }) => "key_set_is_old",
            Self::KeySet(_) => "key_set_not_vouched_for",
            Self::NotTrusted(TrustError::Malformed(_)) | Self::Malformed(_) => "malformed",
            Self::NotTrusted(TrustError::WrongInstance { .. }) => "wrong_instance",
            Self::NotTrusted(TrustError::WrongLog { .. }) => "wrong_log",
            Self::NotTrusted(TrustError::Gap { .. }) | Self::SavedStateGap { .. } => "gap",
            Self::NotTrusted(TrustError::DigestMismatch { .. }) => "digest_mismatch",
            Self::NotTrusted(TrustError::Rollback { .. } | TrustError::EndedEpoch { .. }) => "rollback",
            Self::Head(HeadRefusal::Expired { .. }) => "head_expired",
            Self::Head(HeadRefusal::Future { .. }) => "head_future",
            Self::Head(HeadRefusal::InDoubt) => "head_in_doubt",
            Self::LogRolledBack { .. } => "log_rolled_back",
            Self::EpochAhead { .. } => "epoch_future",
            Self::SavedStateTruncated { .. } => "truncated",
            Self::NotApplied { .. } => "not_applied",
            Self::NotPersisted { .. } => "not_persisted",
        }
    }
}

/// A refusal as it is told: in the log, and as a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: MessageRefusal,
    /// Revision that the refused message claims. Nobody vouches for it where the message is
    /// not verified.
    pub revision: u64,
    /// Digest of what is enforced all the same.
    pub digest: Sha256,
    /// Refusals of this kind that were not told since the last one.
    pub untold: u64,
}

/// Lets one refusal of each kind through every [`TOLD_EVERY`].
#[derive(Debug, Default)]
pub struct Throttle {
    kinds: HashMap<&'static str, (Duration, u64)>,
}

impl Throttle {
    /// Gives the number kept back since the last one, or `None` to keep this one back.
    pub fn pass(&mut self, kind: &'static str, monotonic: Duration) -> Option<u64> {
        match self.kinds.get_mut(kind) {
            Some((told, untold)) if monotonic.saturating_sub(*told) < TOLD_EVERY => {
                *untold += 1;
                None
            }
            Some(entry) => {
                let (_, untold) = std::mem::replace(entry, (monotonic, 0));
                Some(untold)
            }
            None => {
                self.kinds.insert(kind, (monotonic, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_holds_every_cause_and_has_an_end() {
        let refusal = MessageRefusal::from(TrustError::Rollback { revision: 7, offered: 3 });
        assert_eq!(
            refusal.text(),
            "a signed message was refused: the bundle is of revision 3, and this is revision 7"
        );
        let long = MessageRefusal::from(VerifyError::UnknownKey { key_id: "é".repeat(2_000) });
        assert_eq!(long.text().chars().count(), MAX_REFUSAL_LENGTH);
    }

    #[test]
    fn a_flood_of_one_kind_is_told_every_five_seconds_and_hides_no_other() {
        let mut throttle = Throttle::default();
        let passed: Vec<u64> = (0..110)
            .filter_map(|tenth| throttle.pass("unsigned", Duration::from_millis(tenth * 100)))
            .collect();
        assert_eq!(passed, [0, 49, 49]);
        assert_eq!(throttle.pass("rollback", Duration::from_millis(10_950)), Some(0));
    }
}
