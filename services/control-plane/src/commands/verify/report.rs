//! What verification found, for people and for scripts.

use std::fmt::Write as _;
use std::time::Duration;

use catrust_event_store::VerifyReport;
use catrust_event_store::report::Damage;
use serde_json::{Value, json};

use super::checkpoints::CheckpointReport;
use super::stream::StreamReport;

/// Everything that was found.
pub(super) struct Findings {
    /// The log and the read model.
    pub(super) log: VerifyReport,
    /// The stream, where it was asked for.
    pub(super) stream: Option<StreamReport>,
    /// The checkpoints, where some were given.
    pub(super) checkpoints: Option<CheckpointReport>,
    /// How long it took.
    pub(super) elapsed: Duration,
}

impl Findings {
    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.damage().is_empty()
    }

    /// All damage by position; that of the read model, which has none, at the end.
    fn damage(&self) -> Vec<&Damage> {
        let stream = self.stream.iter().flat_map(|stream| &stream.damage);
        let checkpoints = self.checkpoints.iter().flat_map(|checkpoints| &checkpoints.damage);
        let mut damage: Vec<&Damage> = self.log.damage.iter().chain(stream).chain(checkpoints).collect();
        damage.sort_by_key(|piece| piece.position.unwrap_or(u64::MAX));
        damage
    }

    /// For people: the figures, what was compared, and each piece of damage on a line.
    pub(super) fn text(&self) -> String {
        let log = &self.log;
        let mut text = format!(
            "{} events, {} instances, {} CA certificates in {:.1} s; head {}\n",
            log.events,
            log.instances,
            log.certificates,
            self.elapsed.as_secs_f64(),
            log.head_hash
        );
        let mut agree =
            "positions, hash chain, stream versions, revisions, digests and read model".to_owned();
        if let Some(stream) = &self.stream {
            let _ = writeln!(text, "{}", stream.text());
            agree.push_str(", and the stream,");
        }
        if let Some(checkpoints) = &self.checkpoints {
            let _ = writeln!(text, "{}", checkpoints.text());
            agree.push_str(", and the checkpoints,");
        }
        if self.is_clean() {
            let _ = writeln!(text, "clean: {agree} agree");
        }
        for damage in self.damage() {
            let _ = writeln!(text, "DAMAGE at {damage}");
        }
        text
    }

    /// For scripts. `first` is the place to look at: damage often has more behind it.
    pub(super) fn json(&self) -> Value {
        let damage: Vec<Value> = self.damage().into_iter().map(damage_json).collect();
        json!({
            "clean": damage.is_empty(),
            "events": self.log.events,
            "headPosition": self.log.head_position,
            "headHash": self.log.head_hash,
            "instances": self.log.instances,
            "caCertificates": self.log.certificates,
            "seconds": self.elapsed.as_secs_f64(),
            "stream": self.stream.as_ref().map(StreamReport::json),
            "checkpoints": self.checkpoints.as_ref().map(CheckpointReport::json),
            "first": damage.first(),
            "damage": damage,
        })
    }
}

fn damage_json(damage: &Damage) -> Value {
    json!({
        "position": damage.position,
        "kind": damage.kind.name(),
        "description": damage.description,
    })
}
