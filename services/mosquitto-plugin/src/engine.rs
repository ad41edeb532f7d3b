//! What the plugin decides, without a word of C: the broker's callbacks ask, this
//! answers.
//!
//! ```text
//! TLS handshake ─ leaf, chain ──▶ handshake ──▶ accepted / refused
//! CONNECT ─────── leaf ─────────▶ connect ────▶ admitted, registered / refused
//! $CONTROL ────── request ──────▶ control ────▶ response, sessions to kick
//! ```
//! Before the first bundle, and when the agent has not renewed the trust in time,
//! nobody new is accepted.

use std::time::{Duration, Instant};

use catrust_device_trust::{Certificate, Refusal, TrustSet};
use catrust_domain::log_epoch::spell_revision;
use catrust_domain::{InstanceId, Sha256};
use catrust_mosquitto_control::{Bundle, Renewal, Request, RequestBody, RequestOutcome, Response};

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::entries::{InvalidEntries, trust_set};
use crate::options::{Certificateless, Options, UserName};
use crate::sessions::{ClientKey, DeviceSession, Sessions};
use crate::shown_chains::ShownChains;

/// Longest that a bundle may be relied on: a year, so that no sum overflows.
const MAX_ADMISSION: Duration = Duration::from_secs(366 * 24 * 3600);

/// The time, by both clocks: certificates are valid by the calendar, and a bundle is
/// relied on for a length of time, whatever is done to the calendar.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The calendar's.
    pub calendar: UnixTime,
    /// The monotonic clock.
    pub instant: Instant,
}

/// A client, as it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// MQTT client identifier.
    pub client_id: String,
    /// User name that it gave, or that it was given before.
    pub user_name: Option<String>,
    /// Its certificate, DER.
    pub certificate: Option<Vec<u8>>,
    /// Path of the unix socket that it came over, if it did.
    pub socket: Option<String>,
}

/// What becomes of a client at CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A device: accepted, and to be known by the name, if any.
    Admit(Option<String>),
    /// The agent: accepted.
    Agent,
    /// Not ours to decide.
    Defer,
    /// Refused.
    Deny(Denial),
}

/// Why a client is refused at CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Its certificate is not accepted.
    #[error(transparent)]
    Certificate(#[from] Refusal),
    /// It calls itself the agent: by user name, by common name, or by a client identifier
    /// that begins so.
    #[error("it has the agent's name, but did not come over the agent's unix socket")]
    AgentName,
    /// It has no certificate.
    #[error("it has no certificate")]
    NoCertificate,
}

/// Why a request is refused. Nothing changed.
#[derive(Debug, thiserror::Error)]
enum RejectedRequest {
    #[error("the request is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("the bundle is for the instance {0}")]
    WrongInstance(InstanceId),
    #[error("the bundle is empty, and does not say that it is meant to be")]
    Empty,
    #[error("{} is older than {}", spell_revision(*.0), spell_revision(*.1))]
    Older(u64, u64),
    #[error("{} is there already, with another digest", spell_revision(*.0))]
    Forked(u64),
    #[error("the entries make no trust set: {0}")]
    Entries(#[from] InvalidEntries),
    #[error("the digest of the entries is {computed}, not {stated}")]
    Digest { stated: Sha256, computed: Sha256 },
    #[error("{} is not the one that is in force: send the bundle", spell_revision(*.0))]
    NotInForce(u64),
}

/// What follows from a request.
#[derive(Debug)]
pub struct Effect {
    /// The answer, as it stands before anybody is kicked.
    pub response: Response,
    /// Sessions that MUST be kicked now, with their client identifiers.
    pub kick: Vec<(ClientKey, String)>,
    /// Whether their last wills are published.
    pub with_will: bool,
}

/// The state of the plugin.
#[derive(Debug, Default)]
pub struct Engine {
    options: Options,
    /// Instance, revision and digest of the bundle in force.
    point: Option<(InstanceId, u64, Sha256)>,
    trust: TrustSet,
    admits_until: Option<Instant>,
    sessions: Sessions,
    shown: ShownChains,
}

impl Engine {
    /// Starts with trust in nobody.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// The options.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Checks what a device shows in a full handshake, its own certificate first.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn handshake(&mut self, chain: &[Vec<u8>], now: Moment) -> Result<(), Refusal> {
        self.check_admission(now)?;
        let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let path = self.trust.verify(&chain, now.calendar)?;
        self.shown.remember(&path);
        Ok(())
    }

    /// Decides about a client at CONNECT, and again when the broker asks again: on
    /// SIGHUP it does for every live session.
    pub fn connect(&mut self, key: ClientKey, client: Client, now: Moment) -> Decision {
        if self.is_agent(&client) {
            return Decision::Agent;
        }
        let Client { client_id, user_name, certificate, socket } = client;
        // A client of the agent's name would get its access rights, and one of its client
        // identifier would put it out.
        let agent = &self.options.agent_user;
        if user_name.as_ref() == Some(agent) || client_id.starts_with(agent.as_str()) {
            return Decision::Deny(Denial::AgentName);
        }
        let Some(certificate) = certificate else {
            let defer = socket.is_some() || self.options.certificateless == Certificateless::Defer;
            return if defer { Decision::Defer } else { Decision::Deny(Denial::NoCertificate) };
        };
        match self.connect_device(key, client_id, &certificate, now) {
            Ok(user_name) => Decision::Admit(user_name),
            Err(denial) => Decision::Deny(denial),
        }
    }

    fn connect_device(
        &mut self,
        key: ClientKey,
        client_id: String,
        leaf: &[u8],
        now: Moment,
    ) -> Result<Option<String>, Denial> {
        let certificate = Certificate::read(leaf)?;
        let user_name = certificate.user_name();
        if user_name == self.options.agent_user {
            return Err(Denial::AgentName);
        }
        let is_known = self.sessions.find(key).is_some_and(|session| {
            session.path.leaf == certificate.id
                && session.client_id == client_id
                && self.trust.holds(&session.path, now.calendar)
        });
        // A live session outlives the trust's currency: only new ones need it.
        if !is_known {
            self.check_admission(now)?;
            let path = self.trust.verify(&self.shown.chain(leaf), now.calendar)?;
            self.sessions.insert(key, DeviceSession { client_id, path });
        }
        Ok(match self.options.user_name {
            UserName::CommonName => Some(user_name),
            UserName::Keep => None,
        })
    }

    fn check_admission(&self, now: Moment) -> Result<(), Refusal> {
        if self.admits_until.is_some_and(|until| now.instant < until) { Ok(()) } else { Err(Refusal::Stale) }
    }

    /// Takes note that a client is gone.
    pub fn disconnected(&mut self, key: ClientKey) {
        self.sessions.remove(key);
    }

    /// Whether a client may send requests.
    #[must_use]
    pub fn is_agent(&self, client: &Client) -> bool {
        let permitted = self.options.control_socket.as_ref();
        client.certificate.is_none()
            && client.user_name.as_ref() == Some(&self.options.agent_user)
            && client.socket.as_ref().is_some_and(|socket| permitted.is_none_or(|path| path == socket))
    }

    /// Carries a request out.
    pub fn control(&mut self, payload: &[u8], now: Moment) -> Effect {
        let request = serde_json::from_slice::<Request>(payload);
        let id = request.as_ref().map_or(0, |request| request.id);
        let with_will = match &request {
            Ok(Request { body: RequestBody::Bundle(bundle), .. }) => bundle.with_will,
            _ => false,
        };
        let result = request.map_err(RejectedRequest::from).and_then(|request| match request.body {
            RequestBody::Bundle(bundle) => self.replace(bundle, now),
            RequestBody::Renewal(renewal) => self.renew(&renewal, now),
        });
        let kick = if result.is_ok() { self.losers(now) } else { Vec::new() };
        Effect { response: self.response(id, result), kick, with_will }
    }

    fn response(&self, id: u64, result: Result<(), RejectedRequest>) -> Response {
        let (outcome, reason) = match result {
            Ok(()) => (RequestOutcome::Applied, String::new()),
            Err(refusal) => (RequestOutcome::Refused, refusal.to_string()),
        };
        Response {
            id,
            outcome,
            reason,
            revision: self.point.as_ref().map_or(0, |(_, revision, _)| *revision),
            digest: self.point.as_ref().map(|(_, _, digest)| *digest),
            kicked: 0,
            open: self.open(),
            ms: 0.0,
        }
    }

    fn replace(&mut self, bundle: Bundle, now: Moment) -> Result<(), RejectedRequest> {
        self.check_instance(&bundle.instance_id)?;
        if bundle.entries.is_empty() && !bundle.explicit_empty {
            return Err(RejectedRequest::Empty);
        }
        if let Some((_, revision, digest)) = self.point.as_ref().filter(|_| !bundle.takes_back) {
            if bundle.revision < *revision {
                return Err(RejectedRequest::Older(bundle.revision, *revision));
            }
            if bundle.revision == *revision && bundle.digest != *digest {
                return Err(RejectedRequest::Forked(*revision));
            }
        }
        let (trust, computed) = trust_set(&bundle.entries, &self.trust)?;
        if computed != bundle.digest {
            return Err(RejectedRequest::Digest { stated: bundle.digest, computed });
        }
        self.shown.retain(|anchor| trust.find(anchor).is_some());
        self.trust = trust;
        self.point = Some((bundle.instance_id, bundle.revision, bundle.digest));
        self.admit_for(bundle.admit_for_ms, now);
        Ok(())
    }

    fn renew(&mut self, renewal: &Renewal, now: Moment) -> Result<(), RejectedRequest> {
        let in_force = self.point.as_ref().map(|(_, revision, digest)| (*revision, *digest));
        if in_force != Some((renewal.revision, renewal.digest)) {
            return Err(RejectedRequest::NotInForce(renewal.revision));
        }
        self.admit_for(renewal.admit_for_ms, now);
        Ok(())
    }

    fn check_instance(&self, instance_id: &InstanceId) -> Result<(), RejectedRequest> {
        let bound = self.options.instance_id.as_ref().or(self.point.as_ref().map(|(id, _, _)| id));
        match bound {
            Some(bound) if bound != instance_id => Err(RejectedRequest::WrongInstance(instance_id.clone())),
            _ => Ok(()),
        }
    }

    fn admit_for(&mut self, milliseconds: u64, now: Moment) {
        let span = Duration::from_millis(milliseconds).min(MAX_ADMISSION);
        self.admits_until = (!span.is_zero()).then(|| now.instant + span);
    }

    /// The sessions that the trust does not vouch for. Those whose path fell are tried
    /// once more, since another CA certificate may vouch: the twin of a superseded one.
    fn losers(&mut self, now: Moment) -> Vec<(ClientKey, String)> {
        let mut losers = Vec::new();
        for (key, session) in self.sessions.shaken(|path| self.trust.holds(path, now.calendar)) {
            match self.trust.verify(&session.path.chain, now.calendar) {
                Ok(path) => session.path = path,
                Err(_) => losers.push((key, session.client_id.clone())),
            }
        }
        losers
    }

    /// Number of live sessions.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.sessions.len()
    }

    /// How many of `clients` are still connected.
    #[must_use]
    pub fn still_open(&self, clients: &[(ClientKey, String)]) -> usize {
        clients.iter().filter(|(key, _)| self.sessions.find(*key).is_some()).count()
    }
}

#[cfg(test)]
mod tests;
