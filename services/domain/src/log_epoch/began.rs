//! The event that begins a log epoch.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::LogEpoch;
use crate::digest::Sha256;
use crate::event_log::put_netstring;
use crate::identifiers::InstanceId;
use crate::serial_number::SerialNumber;

/// Most lost changes that a [`LogEpochBegan`] tells one by one.
pub const MAX_LOST_TOLD: usize = 1_000;

/// What the signature of a [`LogEpochBegan`] is over, and nothing else is.
const CONTEXT: &str = "catrust/log-epoch/v1";

/// Payload of [`crate::Event::LogEpochBegan`], version 1. It stands right behind the end
/// of the log as it was found, in the stream `log` of the reserved instance.
///
/// One whose signature nobody believes begins nothing: a login that may append rows must
/// not be able to begin an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEpochBegan {
    /// Number of the epoch, above every one before it.
    pub epoch: LogEpoch,
    /// Last position that the epoch keeps of the one before. Rows between it and this one
    /// were appended by servers that did not know yet of the loss, and stay.
    pub fork_position: u64,
    /// Hash of the row at the fork position.
    pub fork_hash: Sha256,
    /// The furthest end of the log that evidence shows.
    pub end_before: EndBefore,
    /// The last signed checkpoints known, as notes.
    pub checkpoints: Vec<String>,
    /// What is known to be lost, ascending by position; the first [`MAX_LOST_TOLD`].
    pub lost: Vec<LostChange>,
    /// Number of lost changes beyond those in `lost`.
    pub lost_untold: u64,
    /// Number of rows right behind this one that were written with it: what was made again.
    pub made_again: u64,
    /// Why the operator, or the setting, began it.
    pub reason: String,
    /// Name of the server key that signed.
    pub key_id: String,
    /// Signature over [`LogEpochBegan::statement`], hexadecimal.
    pub signature: String,
}

/// An end of the log that it no longer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndBefore {
    /// Epoch that the end belonged to.
    pub epoch: LogEpoch,
    /// Its position.
    pub position: u64,
    /// Hash of its row, where the evidence has it.
    pub hash: Option<Sha256>,
}

/// A change that the log no longer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostChange {
    /// Position that it had, or that of the bundle which shows it.
    pub position: u64,
    /// Instance that it was of.
    pub instance_id: InstanceId,
    /// Serial number of its CA certificate; `None` where it was no trust change.
    pub sn: Option<SerialNumber>,
    /// Type of the event; empty where only its effect is known.
    pub event_type: String,
    /// What became of it.
    pub fate: LostFate,
    /// For people: what it was, and what an operator may do.
    pub text: String,
}

/// What became of a lost change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LostFate {
    /// Its effect is in force again.
    MadeAgain,
    /// Its effect would trust more than the restored log does: an operator decides.
    Looser,
    /// It cannot be put into force here, or what it did is not known.
    Unknown,
}

/// Where a [`LogEpochBegan`] stands, and who began it.
#[derive(Clone, Copy, Debug)]
pub struct BeginPlace<'a> {
    /// Its position.
    pub position: u64,
    /// Hash of the row before it, and so all that the log has before it.
    pub previous: &'a Sha256,
    /// Principal that its row names.
    pub actor: &'a str,
}

impl LogEpochBegan {
    /// The bytes that are signed: all of it but the signature, bound to its place.
    #[must_use]
    pub fn statement(&self, log_id: Uuid, place: &BeginPlace<'_>) -> Vec<u8> {
        // Without `..`, so that a new field cannot be left unsigned.
        let Self {
            epoch,
            fork_position,
            fork_hash,
            end_before,
            checkpoints,
            lost,
            lost_untold,
            made_again,
            reason,
            key_id,
            signature: _,
        } = self;
        let mut statement = Vec::new();
        let text = |out: &mut Vec<u8>, text: &str| put_netstring(out, text.as_bytes());
        let number = |out: &mut Vec<u8>, number: u64| put_netstring(out, number.to_string().as_bytes());
        text(&mut statement, CONTEXT);
        text(&mut statement, &log_id.to_string());
        number(&mut statement, place.position);
        text(&mut statement, &place.previous.to_string());
        text(&mut statement, place.actor);
        number(&mut statement, epoch.0.into());
        number(&mut statement, *fork_position);
        text(&mut statement, &fork_hash.to_string());
        number(&mut statement, end_before.epoch.0.into());
        number(&mut statement, end_before.position);
        text(&mut statement, &end_before.hash.map(|hash| hash.to_string()).unwrap_or_default());
        // The length of each list, so that no item can pass for one of another list.
        number(&mut statement, checkpoints.len() as u64);
        checkpoints.iter().for_each(|note| text(&mut statement, note));
        number(&mut statement, lost.len() as u64);
        for change in lost {
            number(&mut statement, change.position);
            text(&mut statement, change.instance_id.as_str());
            text(&mut statement, change.sn.as_ref().map_or("", SerialNumber::as_str));
            text(&mut statement, &change.event_type);
            text(&mut statement, change.fate.name());
            text(&mut statement, &change.text);
        }
        number(&mut statement, *lost_untold);
        number(&mut statement, *made_again);
        text(&mut statement, reason);
        text(&mut statement, key_id);
        statement
    }
}

impl LostFate {
    const fn name(self) -> &'static str {
        match self {
            Self::MadeAgain => "made_again",
            Self::Looser => "looser",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut LogEpochBegan);

    fn began() -> LogEpochBegan {
        LogEpochBegan {
            epoch: LogEpoch(9),
            fork_position: 4,
            fork_hash: Sha256([4; 32]),
            end_before: EndBefore { epoch: LogEpoch(1), position: 10, hash: Some(Sha256([10; 32])) },
            checkpoints: vec!["note".into()],
            lost: vec![LostChange {
                position: 5,
                instance_id: "fleet".parse().unwrap(),
                sn: Some("7A".parse().unwrap()),
                event_type: "CaCertificateInactivated".into(),
                fate: LostFate::MadeAgain,
                text: "inactive again".into(),
            }],
            lost_untold: 2,
            made_again: 1,
            reason: "failover".into(),
            key_id: "key".into(),
            signature: String::new(),
        }
    }

    // Ground rule 9: it is signed by a server key, with the epoch, the fork position and hash,
    // the end before, the last checkpoints, what is lost and the reason.
    #[test]
    fn every_field_and_the_place_are_signed() {
        let (log, other_log) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let place = BeginPlace { position: 11, previous: &Sha256([10; 32]), actor: "root@host" };
        let signed = began().statement(log, &place);
        let with = |change: Change| {
            let mut changed = began();
            change(&mut changed);
            changed.statement(log, &place)
        };
        let changes: [(&str, Change); 19] = [
            ("epoch", |b| b.epoch = LogEpoch(8)),
            ("fork_position", |b| b.fork_position = 3),
            ("fork_hash", |b| b.fork_hash = Sha256::ZERO),
            ("end_before.epoch", |b| b.end_before.epoch = LogEpoch(2)),
            ("end_before.position", |b| b.end_before.position = 9),
            ("end_before.hash", |b| b.end_before.hash = None),
            ("checkpoints", |b| b.checkpoints.clear()),
            ("a checkpoint", |b| b.checkpoints[0] = "other".into()),
            ("lost", |b| b.lost.clear()),
            ("lost.position", |b| b.lost[0].position = 6),
            ("lost.instance_id", |b| b.lost[0].instance_id = "other".parse().unwrap()),
            ("lost.sn", |b| b.lost[0].sn = None),
            ("lost.event_type", |b| b.lost[0].event_type = String::new()),
            ("lost.fate", |b| b.lost[0].fate = LostFate::Looser),
            ("lost.text", |b| b.lost[0].text = String::new()),
            ("lost_untold", |b| b.lost_untold = 0),
            ("made_again", |b| b.made_again = 0),
            ("reason", |b| b.reason = String::new()),
            ("key_id", |b| b.key_id = String::new()),
        ];
        for (field, change) in changes {
            assert_ne!(with(change), signed, "{field}");
        }
        assert_ne!(began().statement(other_log, &place), signed);
        for other in [
            BeginPlace { position: 12, ..place },
            BeginPlace { previous: &Sha256([11; 32]), ..place },
            BeginPlace { actor: "mallory@host", ..place },
        ] {
            assert_ne!(began().statement(log, &other), signed, "{other:?}");
        }
        assert_eq!(with(|b| b.signature = "ab".into()), signed);
    }
}
