//! The facts that the log holds, and their stored shapes.
//!
//! A stored payload is never rewritten. A changed shape gets the next schema
//! version, an upcaster in [`Event::decode`] from each older one, and a golden
//! file in `golden/`; an unknown type or version is an error that stops the
//! reader, because a skipped trust change is a CA that somebody still trusts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ca_certificate::{CaState, CertificateFacts, InactivationScope};
use crate::identifiers::{AccountId, InstanceId, RegionId};
use crate::instance::Edition;
pub use crate::log_epoch::LogEpochBegan;

/// Stream of what happens to the log itself.
pub const LOG_STREAM: &str = "log";

/// Declares the events: the type that holds one, and the list of their types.
macro_rules! events {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Something that happened.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $name($name)),+
        }

        /// The type of an [`Event`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EventType {
            $($(#[$doc])* $name),+
        }

        impl EventType {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, as stored and as a token of NATS subjects.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),+
                }
            }
        }

        impl Event {
            /// Its type.
            #[must_use]
            pub const fn kind(&self) -> EventType {
                match self {
                    $(Self::$name(_) => EventType::$name),+
                }
            }

            /// The payload to store: JSON with the fields in the order of the struct.
            #[must_use]
            pub fn encode(&self) -> String {
                let json = match self {
                    $(Self::$name(payload) => serde_json::to_string(payload)),+
                };
                // Payloads hold only strings, numbers and structs, for which writing JSON
                // to memory cannot fail.
                json.expect("payloads serialise")
            }

            /// Reads a stored payload of any version ever written.
            ///
            /// # Errors
            /// [`UndecodableEvent`]; the caller MUST stop, not skip.
            pub fn decode(
                event_type: &str,
                schema_version: u16,
                payload: &str,
            ) -> Result<Self, UndecodableEvent> {
                let kind = EventType::ALL.iter().find(|kind| kind.name() == event_type);
                let event = match (kind, schema_version) {
                    $((Some(EventType::$name), 1) => serde_json::from_str(payload).map(Self::$name),)+
                    _ => {
                        let event_type = event_type.to_owned();
                        return Err(UndecodableEvent::Unknown { event_type, schema_version });
                    }
                };
                event.map_err(|source| UndecodableEvent::Malformed {
                    event_type: event_type.to_owned(),
                    schema_version,
                    source,
                })
            }
        }
    };
}

events! {
    /// An instance became known.
    InstanceRegistered,
    /// Owner or edition changed.
    InstanceUpdated,
    /// A register code was given out.
    RegisterCodeIssued,
    /// A CA certificate was registered, active.
    CaCertificateRegistered,
    /// Trust in a CA certificate was turned off, or its inactivation widened.
    CaCertificateInactivated,
    /// Trust in a CA certificate was turned on again.
    CaCertificateActivated,
    /// A CA certificate was forgotten.
    CaCertificateDeleted,
    /// A log epoch began, where an older end of the log was lost.
    LogEpochBegan,
}

/// What a type of event makes of its CA certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustOutcome {
    /// It is active afterwards.
    Active,
    /// It is inactive afterwards, in one scope or the other.
    Inactive,
    /// It left the bundle.
    Removed,
}

impl EventType {
    /// What events of this type make of their CA certificate; `None` where they change no
    /// trust. [`Event::trust_effect`] has the particulars.
    #[must_use]
    pub const fn trust_outcome(self) -> Option<TrustOutcome> {
        match self {
            Self::InstanceRegistered
            | Self::InstanceUpdated
            | Self::RegisterCodeIssued
            | Self::LogEpochBegan => None,
            Self::CaCertificateRegistered | Self::CaCertificateActivated => Some(TrustOutcome::Active),
            Self::CaCertificateInactivated => Some(TrustOutcome::Inactive),
            Self::CaCertificateDeleted => Some(TrustOutcome::Removed),
        }
    }

    /// The types of events that change trust.
    pub fn trust_changes() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|kind| kind.trust_outcome().is_some())
    }
}

/// Payload of [`Event::InstanceRegistered`], version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceRegistered {
    /// Region.
    pub region_id: RegionId,
    /// Owner.
    pub owner_account_id: AccountId,
    /// Edition.
    pub edition: Edition,
}

/// Payload of [`Event::InstanceUpdated`], version 1: the values after the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceUpdated {
    /// Owner.
    pub owner_account_id: AccountId,
    /// Edition.
    pub edition: Edition,
}

/// Payload of [`Event::RegisterCodeIssued`], version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterCodeIssued {
    /// The code. Not a secret: it proves nothing without a signature over it.
    pub register_code: String,
}

/// Payload of [`Event::CaCertificateRegistered`], version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaCertificateRegistered {
    /// The certificate.
    pub certificate: Arc<CertificateFacts>,
    /// Name for people.
    pub ca_name: String,
    /// Code that proved possession.
    pub register_code: String,
}

/// Payload of [`Event::CaCertificateInactivated`], version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaCertificateInactivated {
    /// The certificate, whole: the message to brokers is a function of this row alone.
    pub certificate: Arc<CertificateFacts>,
    /// How far the inactivation reaches.
    pub scope: InactivationScope,
    /// Whether the last wills of cut sessions shall be published.
    pub with_will: bool,
    /// Reason given; may be empty.
    pub reason: String,
}

/// Payload of [`Event::CaCertificateActivated`], version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaCertificateActivated {
    /// The certificate.
    pub certificate: Arc<CertificateFacts>,
    /// Reason given; may be empty.
    pub reason: String,
}

/// Payload of [`Event::CaCertificateDeleted`], version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaCertificateDeleted {
    /// The certificate as it was.
    pub certificate: Arc<CertificateFacts>,
    /// Whether the last wills of cut sessions shall be published.
    pub with_will: bool,
    /// Reason given; may be empty.
    pub reason: String,
}

/// What an event does to the trust of its instance.
#[derive(Clone, Copy, Debug)]
pub struct TrustEffect<'a> {
    /// The certificate concerned.
    pub certificate: &'a Arc<CertificateFacts>,
    /// Its state afterwards; `None` when it leaves the bundle.
    pub state: Option<CaState>,
    /// Whether the last wills of cut sessions shall be published.
    pub with_will: bool,
    /// Reason given; may be empty.
    pub reason: &'a str,
}

/// A stored event that this version cannot read. The reader MUST stop: it may be
/// a trust change written by a newer version.
#[derive(Debug, thiserror::Error)]
pub enum UndecodableEvent {
    /// Neither the type nor the version is known.
    #[error("unknown event {event_type} version {schema_version}")]
    Unknown {
        /// Type as stored.
        event_type: String,
        /// Version as stored.
        schema_version: u16,
    },
    /// The payload does not have the shape of its type and version.
    #[error("malformed payload of {event_type} version {schema_version}")]
    Malformed {
        /// Type as stored.
        event_type: String,
        /// Version as stored.
        schema_version: u16,
        /// What the JSON parser says.
        #[source]
        source: serde_json::Error,
    },
}

impl Event {
    /// Name of its type, as stored.
    #[must_use]
    pub const fn event_type(&self) -> &'static str {
        self.kind().name()
    }

    /// Version of the payload's shape that [`Event::encode`] writes.
    #[must_use]
    pub const fn schema_version(&self) -> u16 {
        1
    }

    /// What the event does to the instance's trust; `None` for other events.
    #[must_use]
    pub fn trust_effect(&self) -> Option<TrustEffect<'_>> {
        match self {
            Self::InstanceRegistered(_)
            | Self::InstanceUpdated(_)
            | Self::RegisterCodeIssued(_)
            | Self::LogEpochBegan(_) => None,
            Self::CaCertificateRegistered(payload) => Some(TrustEffect {
                certificate: &payload.certificate,
                state: Some(CaState::Active),
                with_will: false,
                reason: "",
            }),
            Self::CaCertificateInactivated(payload) => Some(TrustEffect {
                certificate: &payload.certificate,
                state: Some(CaState::Inactive(payload.scope)),
                with_will: payload.with_will,
                reason: &payload.reason,
            }),
            Self::CaCertificateActivated(payload) => Some(TrustEffect {
                certificate: &payload.certificate,
                state: Some(CaState::Active),
                with_will: false,
                reason: &payload.reason,
            }),
            Self::CaCertificateDeleted(payload) => Some(TrustEffect {
                certificate: &payload.certificate,
                state: None,
                with_will: payload.with_will,
                reason: &payload.reason,
            }),
        }
    }

    /// Stream that the event belongs to.
    #[must_use]
    pub fn stream_id(&self, instance_id: &InstanceId) -> String {
        match self.trust_effect() {
            None if matches!(self, Self::LogEpochBegan(_)) => LOG_STREAM.to_owned(),
            None => format!("instance/{instance_id}"),
            Some(effect) => format!("ca-certificate/{instance_id}/{}", effect.certificate.sha256),
        }
    }
}
