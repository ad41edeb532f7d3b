//! An MQTT fleet of one account: the aggregate that CA certificates belong to.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::event::{Event, InstanceRegistered, InstanceUpdated};
use crate::identifiers::{AccountId, InstanceId, RegionId};
use crate::rejection::Rejection;
use crate::set_hash::SetHash;
use crate::timestamp::Timestamp;

/// Unspent register codes that an instance keeps; a newer one drops the oldest.
///
/// The fold depends on it: another value gives old logs another read model, so
/// that a change needs a rebuild at the same moment.
pub const MAX_UNSPENT_REGISTER_CODES: usize = 64;

/// What an instance was bought as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Edition {
    /// May change the states of CA certificates.
    Platinum,
    /// May register, query and delete.
    Professional,
    /// May register, query and delete.
    Standard,
}

impl Edition {
    /// Whether the edition may inactivate and activate CA certificates.
    #[must_use]
    pub const fn may_change_states(self) -> bool {
        matches!(self, Self::Platinum)
    }
}

/// Current state of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Name; never reused.
    pub instance_id: InstanceId,
    /// Region; never changes.
    pub region_id: RegionId,
    /// Owner.
    pub owner_account_id: AccountId,
    /// Edition.
    pub edition: Edition,
    /// Its last revision: epoch and number of trust changes so far. As stored, that of the last
    /// change; as the store's reads give it, the same count in the epoch in force.
    pub revision: u64,
    /// Log position of the change that made `revision`; 0 before the first.
    pub trust_position: u64,
    /// Digest of the trust bundle at `revision`: that of `set_hash`.
    pub bundle_digest: Sha256,
    /// State behind `bundle_digest`. Not part of replies.
    #[serde(skip)]
    pub set_hash: SetHash,
    /// CA certificates registered now.
    pub certificate_count: u32,
    /// Codes that a registration may still use, oldest first. Not part of replies.
    #[serde(skip)]
    pub unspent_register_codes: Vec<String>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// Log position of its registration: the order of lists.
    pub registered_position: u64,
    /// When owner or edition last changed.
    pub updated_at: Timestamp,
    /// Log position of the last change of owner or edition.
    pub updated_position: u64,
    /// Number of events in its stream.
    pub stream_version: u64,
}

/// Decides the registration of an instance.
///
/// Gives no event when it is registered with the same values already, so that a
/// caller may retry.
///
/// # Errors
/// [`Rejection::InstanceExists`] when it is registered with other values.
pub fn decide_register(
    state: Option<&Instance>,
    wanted: InstanceRegistered,
) -> Result<Option<Event>, Rejection> {
    match state {
        None => Ok(Some(Event::InstanceRegistered(wanted))),
        Some(instance)
            if instance.region_id == wanted.region_id
                && instance.owner_account_id == wanted.owner_account_id
                && instance.edition == wanted.edition =>
        {
            Ok(None)
        }
        Some(_) => Err(Rejection::InstanceExists),
    }
}

/// Decides a change of owner or edition; `None` leaves a value as it is.
///
/// # Errors
/// [`Rejection::InstanceNotFound`].
pub fn decide_update(
    state: Option<&Instance>,
    owner_account_id: Option<AccountId>,
    edition: Option<Edition>,
) -> Result<Option<Event>, Rejection> {
    let instance = state.ok_or(Rejection::InstanceNotFound)?;
    let next = InstanceUpdated {
        owner_account_id: owner_account_id.unwrap_or_else(|| instance.owner_account_id.clone()),
        edition: edition.unwrap_or(instance.edition),
    };
    let same = next.owner_account_id == instance.owner_account_id && next.edition == instance.edition;
    Ok((!same).then_some(Event::InstanceUpdated(next)))
}
