//! What callers ask for, and what they are told.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ca_certificate::{CaCertificate, CertificateFacts, InactivationScope};
use crate::digest::Sha256;
use crate::event::InstanceRegistered;
use crate::identifiers::{AccountId, InstanceId};
use crate::instance::{Edition, Instance};
use crate::serial_number::SerialNumber;

/// A change that somebody asks for, with every field parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make an instance known.
    RegisterInstance(InstanceRegistered),
    /// Change owner or edition; `None` leaves a value as it is.
    UpdateInstance {
        /// New owner.
        owner_account_id: Option<AccountId>,
        /// New edition.
        edition: Option<Edition>,
    },
    /// Give out a register code.
    IssueRegisterCode {
        /// The code, drawn by the caller of the domain.
        register_code: String,
    },
    /// Register a CA certificate whose possession the code proved.
    RegisterCaCertificate {
        /// The certificate, parsed and checked.
        facts: Arc<CertificateFacts>,
        /// Name for people.
        ca_name: String,
        /// Code in the verification certificate.
        register_code: String,
        /// Most CA certificates that the instance may have.
        certificate_limit: u32,
    },
    /// Turn trust off.
    InactivateCaCertificate {
        /// Which certificate.
        sn: SerialNumber,
        /// How far.
        scope: InactivationScope,
        /// Whether the last wills of cut sessions shall be published.
        with_will: bool,
        /// Why; may be empty.
        reason: String,
    },
    /// Turn trust on again.
    ActivateCaCertificate {
        /// Which certificate.
        sn: SerialNumber,
        /// Revision of the newest change of the certificate that the caller has seen.
        expected_revision: Option<u64>,
        /// Why; may be empty.
        reason: String,
    },
    /// Forget a CA certificate.
    DeleteCaCertificate {
        /// Which certificate.
        sn: SerialNumber,
        /// Whether the last wills of cut sessions shall be published.
        with_will: bool,
        /// Why; may be empty.
        reason: String,
    },
}

/// Idempotency key of a request whose caller chose the request id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Account of the caller: request ids are unique within it.
    pub account_id: AccountId,
    /// The id.
    pub request_id: Uuid,
}

/// Who asks, from where, and under which identities. Drawn and observed outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandContext {
    /// Identity for the event, should the command make one.
    pub event_id: Uuid,
    /// Request id: the caller's, or one that the server made.
    pub request_id: Uuid,
    /// SHA-256 of the canonical request where the caller chose the id; `None`
    /// where the server made it, since nobody can repeat it then.
    pub fingerprint: Option<Sha256>,
    /// Principal that asks.
    pub actor: String,
    /// Account of the principal.
    pub account_id: AccountId,
    /// Version of the policies that allowed it.
    pub policy_version: String,
    /// Network address of the caller; empty where unknown.
    pub source_address: String,
    /// W3C trace context; empty where there is none.
    pub traceparent: String,
}

/// A command, addressed and signed off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandEnvelope {
    /// Instance that it concerns.
    pub instance_id: InstanceId,
    /// What to do.
    pub command: Command,
    /// Who asks.
    pub context: CommandContext,
}

impl CommandEnvelope {
    /// The idempotency key, where the caller chose the request id.
    #[must_use]
    pub fn request_key(&self) -> Option<RequestKey> {
        self.context.fingerprint.is_some().then(|| RequestKey {
            account_id: self.context.account_id.clone(),
            request_id: self.context.request_id,
        })
    }
}

/// What a command did. Stored under the request id, and given again to a repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// False when the asked-for state held already: nothing was recorded.
    pub changed: bool,
    /// Position of the event, or of the one that made the state where nothing changed.
    pub position: u64,
    /// Instance revision at which the state holds.
    pub revision: u64,
    /// The state.
    pub body: ReplyBody,
}

/// The state that a [`Reply`] tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplyBody {
    /// An instance after the command.
    Instance(Box<Instance>),
    /// A register code.
    RegisterCode(String),
    /// A CA certificate after the command.
    CaCertificate {
        /// The certificate.
        certificate: Box<CaCertificate>,
        /// Others of the instance with the same key, ascending.
        same_key_sns: Vec<SerialNumber>,
    },
    /// The certificate is gone.
    Deleted {
        /// Its serial number.
        sn: SerialNumber,
    },
}

/// A reply kept for repeats of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// Under which key.
    pub key: RequestKey,
    /// SHA-256 of the canonical request that got it.
    pub fingerprint: Sha256,
    /// The reply.
    pub reply: Reply,
}
