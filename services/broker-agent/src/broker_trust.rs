//! The trust that a broker enforces: the set of the moment, the sessions that it
//! vouches for, and the one way to change them.
//!
//! ```text
//! apply:  (1) swap the trust ─▶ (2) retire resumption ─▶ (3) tell the losers ─▶ wait until they have ended
//! admit:  look at the trust ─▶ register ─▶ look at it again; another one ─▶ once more
//! ```
//!
//! No connect slips past a change. It registers before step 3 takes the registry's
//! lock, and is seen there; or after, and then its second look finds the new trust,
//! which was stored before that lock was taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use catrust_device_trust::Refusal;
use catrust_trust_feed::agent::{AgentTrust, Applied, Enforcement, Enforcer, NotApplied};
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;

use crate::registry::{SessionId, SessionRegistry};
use crate::revision_trust::RevisionTrust;
use crate::session::{Cause, Cut, Session};

/// How long a receipt waits for told sessions to end. A session ends within
/// milliseconds unless its task is stuck.
const SETTLE: Duration = Duration::from_secs(5);
/// How often expiry is looked at. By the wall clock and not by one long timer, so
/// that a clock that is set is noticed.
const EXPIRY_TICK: Duration = Duration::from_secs(1);

/// The live trust of one broker. Refuses everybody until the first bundle.
#[derive(Debug)]
pub struct BrokerTrust {
    current: ArcSwap<RevisionTrust>,
    registry: Arc<SessionRegistry>,
    /// Counts the times when somebody lost trust. Tickets and stored sessions of an
    /// earlier epoch are not resumed.
    epoch: AtomicU64,
    /// Held while the trust is swapped and its losers are told: one decision at a time.
    deciding: Mutex<()>,
    cut_total: AtomicU64,
}

impl Default for BrokerTrust {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(RevisionTrust::nothing()),
            registry: Arc::default(),
            epoch: AtomicU64::new(0),
            deciding: Mutex::default(),
            cut_total: AtomicU64::new(0),
        }
    }
}

impl BrokerTrust {
    /// The trust of the moment.
    #[must_use]
    pub fn current(&self) -> Arc<RevisionTrust> {
        self.current.load_full()
    }

    /// The live sessions.
    #[must_use]
    pub const fn registry(&self) -> &Arc<SessionRegistry> {
        &self.registry
    }

    /// The number of times that trust was taken from somebody. Whoever keeps
    /// resumption state MUST throw it away when this moves.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Sessions cut since the start.
    #[must_use]
    pub fn cut_total(&self) -> u64 {
        self.cut_total.load(Ordering::Relaxed)
    }

    /// Admits a connection after its TLS handshake, resumed ones included: `chain` is
    /// what [`rustls::ConnectionCommon`] gives as `peer_certificates`. No byte MUST be
    /// forwarded before.
    ///
    /// # Errors
    /// [`Refusal`]; close the connection.
    pub fn admit(&self, chain: Option<&[CertificateDer<'static>]>) -> Result<Session, Refusal> {
        let chain = chain.ok_or(Refusal::NoCertificate)?;
        let mut trust = self.current();
        loop {
            let path = trust.admit(chain, UnixTime::now())?;
            let session = Session::register(&self.registry, path);
            let now = self.current();
            if Arc::ptr_eq(&trust, &now) {
                return Ok(session);
            }
            trust = now;
        }
    }

    /// Steps 1 to 3; gives the sessions that were told to end.
    fn decide(&self, trust: &AgentTrust) -> Vec<SessionId> {
        let _one_at_a_time = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.current();
        let current = Arc::new(RevisionTrust::new(&trust.bundle, trust.freshness.admits(), &previous));
        for (sha256, reason) in current.unusable() {
            tracing::error!(%sha256, %reason, "an active CA certificate cannot be used: its devices are refused");
        }
        let narrower = current.is_narrower_than(&previous);
        self.current.store(Arc::clone(&current));
        if narrower {
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
        let cut = Cut {
            cause: Cause::Distrusted { with_will: trust.with_will },
            reason: Arc::from(trust.reason.as_str()),
        };
        self.registry.cut(&current, &previous, UnixTime::now(), &cut)
    }

    /// Ends the sessions whose certificate expires, or one above it, until `stop`.
    pub async fn watch_expiry(&self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EXPIRY_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut earlier = UnixTime::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = UnixTime::now();
            let told = self.expire(earlier, now);
            if !told.is_empty() {
                tracing::info!(sessions = told.len(), "sessions cut: certificates have expired");
            }
            earlier = now;
        }
    }

    fn expire(&self, earlier: UnixTime, now: UnixTime) -> Vec<SessionId> {
        let _one_at_a_time = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current();
        if current.set().expires_between(earlier, now) {
            self.epoch.fetch_add(1, Ordering::SeqCst);
        }
        let cut = Cut { cause: Cause::Expired, reason: Arc::from("a certificate on its path has expired") };
        let told = self.registry.cut(&current, &current, now, &cut);
        self.cut_total.fetch_add(told.len() as u64, Ordering::Relaxed);
        told
    }
}

#[async_trait]
impl Enforcer for BrokerTrust {
    async fn apply(&self, trust: &AgentTrust) -> Result<Applied, NotApplied> {
        let told = self.decide(trust).len() as u64;
        self.cut_total.fetch_add(told, Ordering::Relaxed);
        self.registry.settled(SETTLE).await.map_err(|left| NotApplied {
            reason: format!("{left} sessions were told to end and have not after {} s", SETTLE.as_secs()),
        })?;
        Ok(Applied { sessions_cut: told, sessions_open: self.sessions_open() })
    }

    fn sessions_open(&self) -> u64 {
        self.registry.open() as u64
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Tls
    }
}
