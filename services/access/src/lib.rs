//! Who calls, and what they may do.
//!
//! Two seams: an [`Authenticator`] turns credentials into an [`Identity`], an
//! [`Authorizer`] decides whether an identity may perform an [`Action`] on a
//! [`InstanceResource`]. Behind the first: one fixed identity for development
//! ([`development`]), or everybody whom the identities file ([`static_identities`]) and the
//! issuer of tokens ([`jwt`]) know ([`known_callers`]). Behind the second: what the file
//! grants, or policies in a folder ([`policy_folder`]).

pub mod broker_binding;
pub mod client_certificate;
pub mod development;
pub mod distinguished_name;
pub mod identities;
pub mod jwt;
pub mod known_callers;
mod pattern;
pub mod policy_folder;
pub mod secret_toml;
pub mod static_identities;

use std::net::IpAddr;
use std::sync::Arc;

use catrust_domain::{AccountId, InstanceId, RegionId, Timestamp};

pub use broker_binding::BrokerBinding;
pub use catrust_policy::Action;
use client_certificate::ClientCertificate;
pub use identities::{Identities, PermissionSource};
use static_identities::StaticEntry;
use tokio_util::sync::CancellationToken;

/// What a caller brings.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The token of `authorization: Bearer TOKEN`.
    pub bearer_token: Option<&'a str>,
    /// The TLS client certificate, already verified against the client CAs.
    pub client_certificate: Option<&'a ClientCertificate>,
}

/// Somebody who calls.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the principal: recorded with events, and the user of the rate limit.
    pub principal: Arc<str>,
    /// Account of the principal.
    pub account_id: AccountId,
    /// Whether the principal operates catrust itself: the owner check of instances
    /// does not apply to `InstanceService`, which only operators may change with.
    pub operator: bool,
    /// The broker that the identity is for: it may do nothing else. `None` for people and
    /// services.
    pub broker: Option<Arc<BrokerBinding>>,
    /// The entry of the identities file that the authenticator recognised: what one
    /// credential may do is not what another one of the same principal may. `None` for
    /// callers whom the file does not know.
    pub entry: Option<Arc<StaticEntry>>,
    /// Cancelled when what the credentials were checked by is withdrawn: the entry, or the
    /// issuer's key.
    pub withdrawn: Arc<CancellationToken>,
    /// From when on the credentials are not accepted; `None` where they do not say.
    pub expires_at: Option<Timestamp>,
}

/// Why credentials are no identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCredentials {
    /// What sort of problem it is, for a metric: `missing`, `malformed` or `invalid`.
    pub kind: &'static str,
    /// What the caller should do. All that it hears.
    pub advice: &'static str,
    /// What is wrong, for the log. Callers MUST NOT hear it: it tells which part of a
    /// credential was right.
    pub reason: &'static str,
}

impl InvalidCredentials {
    /// The caller has shown nothing.
    #[must_use]
    pub const fn missing() -> Self {
        Self {
            kind: "missing",
            advice: "no valid identity: send `authorization: Bearer TOKEN`, or a client certificate",
            reason: "no credentials",
        }
    }

    /// What the caller has shown has not the form of a credential.
    #[must_use]
    pub const fn malformed(reason: &'static str) -> Self {
        Self { kind: "malformed", reason, ..Self::invalid("") }
    }

    /// What the caller has shown is not accepted here.
    #[must_use]
    pub const fn invalid(reason: &'static str) -> Self {
        Self {
            kind: "invalid",
            advice: "no valid identity: get a new token or certificate, or have yours made known here; the \
                     request id finds the reason in the server's log",
            reason,
        }
    }
}

/// An MQTT instance as policies name it: `acs:mq:{region}:{account}:{instance}`.
#[derive(Clone, Copy, Debug)]
pub struct InstanceResource<'a> {
    /// Region; `None` for every region.
    pub region_id: Option<&'a RegionId>,
    /// Owner account; `None` for every account.
    pub account_id: Option<&'a AccountId>,
    /// Instance; `None` for every instance.
    pub instance_id: Option<&'a InstanceId>,
}

impl std::fmt::Display for InstanceResource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "acs:mq:{}:{}:{}",
            self.region_id.map_or("*", RegionId::as_str),
            self.account_id.map_or("*", AccountId::as_str),
            self.instance_id.map_or("*", InstanceId::as_str),
        )
    }
}

/// Circumstances of a call that policies may look at.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Where the call comes from; `None` where the transport does not tell.
    pub source_address: Option<IpAddr>,
    /// When it was made.
    pub now: Timestamp,
}

/// Turns credentials into an identity.
pub trait Authenticator: Send + Sync {
    /// Decides whose the credentials are at `now`.
    ///
    /// # Errors
    /// What is missing or wrong.
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<Identity, InvalidCredentials>;
}

/// Decides what identities may do. Nothing is allowed by default.
pub trait Authorizer: Send + Sync {
    /// Decides whether `identity` may perform `action`, and the action that it depends
    /// on, on `resource`; gives the version of the policies that allowed it, to be
    /// recorded with the event.
    ///
    /// Implementations MUST decide both actions by one version: what an old one says of
    /// the first and a new one of the second, no policy has ever said.
    ///
    /// # Errors
    /// No policy allows it, or one denies it.
    fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        resource: &InstanceResource<'_>,
        circumstances: &Circumstances,
    ) -> Result<Arc<str>, Denial>;
}

/// No policy allows it, or one denies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The action that was refused: the one asked for, or the one that it depends on.
    pub action: Action,
    /// Which policy says so, for the log. Callers MUST NOT hear it: it tells what an
    /// account's policies are like.
    pub reason: String,
}
