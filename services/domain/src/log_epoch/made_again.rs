//! What a new log epoch makes again of what the one before lost: the state, not the events.
//!
//! ```text
//! restored \ lost │ active            inactive               deleted there
//! active          │ nothing           inactive, its scope    inactive: the scope it had, else CERTIFICATE
//! inactive        │ stays (looser)    the wider scope        the wider scope
//! unknown         │ listed (looser)   registered, inactive   registered, inactive, where it was inactive before
//! ```
//!
//! So no certificate and no key is trusted that either side had turned off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{LogEpoch, LostChange, LostFate, spell_revision};
use crate::ca_certificate::{CaState, CertificateFacts, InactivationScope};
use crate::digest::Sha256;
use crate::event::{CaCertificateInactivated, CaCertificateRegistered, Event};
use crate::identifiers::InstanceId;
use crate::read_model::ReadModel;
use crate::serial_number::SerialNumber;

/// What begins the register codes of CA certificates that are registered again: no code that
/// was given out looks so.
const REGISTER_CODE: &str = "made-again-";

/// A change that the log no longer has, as a verified message or bundle shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostEvent {
    /// Position that it had.
    pub position: u64,
    /// Epoch that it was of.
    pub epoch: LogEpoch,
    /// Instance that it was of.
    pub instance_id: InstanceId,
    /// Type of the event; empty where only its effect is known.
    pub event_type: String,
    /// What it did to trust; `None` where it did nothing.
    pub trust: Option<LostTrustChange>,
}

/// What a lost change did to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostTrustChange {
    /// The certificate.
    pub certificate: Arc<CertificateFacts>,
    /// Revision that it made.
    pub revision: u64,
    /// State after it; `None` where it left the bundle.
    pub state: Option<CaState>,
}

/// What there was of one certificate at the end of what was lost.
struct LastSeen<'a> {
    event: &'a LostEvent,
    change: &'a LostTrustChange,
    /// State in which it was deleted, where it was and that is known.
    deleted_as: Option<CaState>,
}

/// Gives what is to be appended, in order, and what became of each lost change, ascending by
/// position. `restored` MUST hold all rows of the instances concerned; `lost` is in any order.
/// Nothing that it gives is looser than `restored` or than what was lost.
#[must_use]
pub fn made_again(lost: &[LostEvent], restored: &ReadModel) -> (Vec<(InstanceId, Event)>, Vec<LostChange>) {
    let mut lost: Vec<&LostEvent> = lost.iter().collect();
    // Of two epochs that were lost the later one went on where the earlier had been set back.
    lost.sort_by_key(|event| (event.epoch, event.position));
    let mut last: BTreeMap<(&InstanceId, Sha256), LastSeen<'_>> = BTreeMap::new();
    for event in &lost {
        let Some(change) = &event.trust else { continue };
        let key = (&event.instance_id, change.certificate.sha256);
        let before = last.get(&key).and_then(|seen| seen.change.state.or(seen.deleted_as));
        let here = || here(restored, event, change);
        let deleted_as = if change.state.is_none() { before.or_else(here) } else { None };
        last.insert(key, LastSeen { event, change, deleted_as });
    }
    let mut in_order: Vec<&LastSeen<'_>> = last.values().collect();
    in_order.sort_by_key(|seen| (seen.event.epoch, seen.event.position));
    let mut events = Vec::new();
    let mut fates: BTreeMap<(&InstanceId, Sha256), (u64, LostFate, String)> = BTreeMap::new();
    let mut taken: BTreeSet<(&InstanceId, &SerialNumber)> = BTreeSet::new();
    for seen in in_order {
        let (fate, text) = restore(seen, restored, &mut taken, &mut events);
        let key = (&seen.event.instance_id, seen.change.certificate.sha256);
        fates.insert(key, (seen.event.position, fate, text));
    }
    let told = lost.iter().map(|event| told(event, &fates)).collect();
    (events, told)
}

/// The state of the certificate in the restored log.
fn here(restored: &ReadModel, event: &LostEvent, change: &LostTrustChange) -> Option<CaState> {
    restored
        .certificate(&event.instance_id, &change.certificate.sn)
        .filter(|known| known.facts.sha256 == change.certificate.sha256)
        .map(|known| known.state)
}

/// The order of strictness.
const fn strictness(state: CaState) -> u8 {
    match state {
        CaState::Active => 0,
        CaState::Inactive(InactivationScope::Certificate) => 1,
        CaState::Inactive(InactivationScope::Key) => 2,
    }
}

/// Decides on one certificate.
fn restore<'a>(
    seen: &LastSeen<'a>,
    restored: &ReadModel,
    taken: &mut BTreeSet<(&'a InstanceId, &'a SerialNumber)>,
    events: &mut Vec<(InstanceId, Event)>,
) -> (LostFate, String) {
    let LastSeen { event, change, deleted_as } = *seen;
    let (id, certificate) = (&event.instance_id, &change.certificate);
    if restored.instance(id).is_none() {
        return (LostFate::Unknown, "the instance is not known any more: register it again".to_owned());
    }
    let known = here(restored, event, change);
    // Who deletes an active certificate turns its trust off, and takes none from its twins.
    let there = change.state.unwrap_or(match deleted_as {
        Some(CaState::Inactive(scope)) => CaState::Inactive(scope),
        Some(CaState::Active) | None => CaState::Inactive(InactivationScope::Certificate),
    });
    match (known, there) {
        (Some(here), there) if strictness(there) < strictness(here) => (
            LostFate::Looser,
            "it was trusted more than it is here: activate it, if that is still wanted".to_owned(),
        ),
        (Some(here), there) if here == there => (LostFate::MadeAgain, "it is so here".to_owned()),
        (None, CaState::Active) => {
            (LostFate::Looser, "it is not known any more: register it again".to_owned())
        }
        (None, _) if change.state.is_none() && !matches!(deleted_as, Some(CaState::Inactive(_))) => {
            (LostFate::MadeAgain, "it is not known here, as it was deleted there".to_owned())
        }
        (known, CaState::Inactive(scope)) => {
            if known.is_none() {
                let is_taken = restored.certificate(id, &certificate.sn).is_some()
                    || !taken.insert((id, &certificate.sn));
                if is_taken {
                    let text = "INACTIVE THERE, AND NOT MADE AGAIN: another CA certificate has its serial number \
                                here; inactivate what vouches for its devices by hand";
                    return (LostFate::Unknown, text.to_owned());
                }
                let payload = CaCertificateRegistered {
                    certificate: Arc::clone(certificate),
                    ca_name: certificate.sn.to_string(),
                    register_code: format!("{REGISTER_CODE}{:.16}", certificate.sha256.to_string()),
                };
                events.push((id.clone(), Event::CaCertificateRegistered(payload)));
            }
            let reason = format!("made again; was position {} of epoch {}", event.position, event.epoch);
            let certificate = Arc::clone(certificate);
            let payload = CaCertificateInactivated { certificate, scope, with_will: false, reason };
            events.push((id.clone(), Event::CaCertificateInactivated(payload)));
            (LostFate::MadeAgain, "it is inactive again".to_owned())
        }
        (Some(_), CaState::Active) => (LostFate::MadeAgain, "it is so here".to_owned()),
    }
}

/// What became of one lost change: what became of the last one of its certificate.
fn told(event: &LostEvent, fates: &BTreeMap<(&InstanceId, Sha256), (u64, LostFate, String)>) -> LostChange {
    let fate = event.trust.as_ref().and_then(|change| {
        let fate = fates.get(&(&event.instance_id, change.certificate.sha256))?;
        Some((change, fate))
    });
    let (sn, fate, text) = match fate {
        None => (
            None,
            LostFate::Unknown,
            "it changed no trust; repeat the call, if it is still wanted".to_owned(),
        ),
        Some((change, (last, fate, text))) => {
            let was = spell_revision(change.revision);
            let text = if *last == event.position {
                format!("{was}: {text}")
            } else {
                format!("{was}: overtaken by position {last}")
            };
            (Some(change.certificate.sn.clone()), *fate, text)
        }
    };
    LostChange {
        position: event.position,
        instance_id: event.instance_id.clone(),
        sn,
        event_type: event.event_type.clone(),
        fate,
        text,
    }
}
