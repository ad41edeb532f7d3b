//! Who is connected, and which CA vouched for whom.
//!
//! ```text
//! register ──▶ open ──cut──▶ ending ──fence or close──▶ gone
//!                └────────────close───────────────────▶ gone
//! ```
//!
//! Sessions are kept by the issuing side of their path, so that a change looks at one
//! entry per CA and then only at the sessions of those that lost their trust. The
//! registry knows sets and verdicts; it knows neither TLS nor sockets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catrust_device_trust::{IssuerPath, TrustPath};
use catrust_domain::Sha256;
use rustls::pki_types::UnixTime;
use tokio::sync::{oneshot, watch};

use crate::revision_trust::RevisionTrust;
use crate::session::Cut;

/// Names a session for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// The live sessions of a broker.
#[derive(Debug)]
pub struct SessionRegistry {
    sessions: Mutex<Sessions>,
    /// Number of sessions that were told to end and forward data still.
    ending: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Sessions {
    last_id: u64,
    entries: HashMap<SessionId, Entry>,
    /// Open sessions by the path that vouches.
    by_path: HashMap<Arc<IssuerPath>, HashSet<SessionId>>,
    /// Open sessions by the first bytes of the digests of the device's own certificate
    /// and key: a device that uses the key of a CA is found without a walk over all.
    by_leaf: BTreeSet<(u64, SessionId)>,
    /// Open sessions by the last second in which the device's own certificate is valid.
    by_expiry: BTreeSet<(i64, SessionId)>,
    open: usize,
}

#[derive(Debug)]
struct Entry {
    path: Arc<TrustPath>,
    /// Gone once the session is told to end.
    signal: Option<oneshot::Sender<Cut>>,
}

impl Default for SessionRegistry {
    fn default() -> Self {
        Self { sessions: Mutex::default(), ending: watch::Sender::new(0) }
    }
}

impl SessionRegistry {
    /// Number of open sessions, those that are ending not counted.
    #[must_use]
    pub fn open(&self) -> usize {
        self.lock().open
    }

    /// Number of sessions that were told to end and have not confirmed it.
    #[must_use]
    pub fn ending(&self) -> usize {
        *self.ending.borrow()
    }

    /// Number of open sessions that `anchor`, the SHA-256 of a CA certificate,
    /// vouches for.
    #[must_use]
    pub fn open_below(&self, anchor: &Sha256) -> usize {
        let sessions = self.lock();
        let groups = sessions.by_path.iter();
        groups.filter(|(path, _)| path.anchor.sha256 == *anchor).map(|(_, members)| members.len()).sum()
    }

    /// Enters a session. The caller MUST compare with the trust of the moment after
    /// this, not before: a change that came in between has not seen the session.
    pub(crate) fn register(&self, path: &Arc<TrustPath>) -> (SessionId, oneshot::Receiver<Cut>) {
        let (signal, told) = oneshot::channel();
        let mut sessions = self.lock();
        sessions.last_id += 1;
        let id = SessionId(sessions.last_id);
        sessions.entries.insert(id, Entry { path: Arc::clone(path), signal: Some(signal) });
        sessions.link(id, path);
        sessions.open += 1;
        (id, told)
    }

    /// Notes that a session forwards nothing any more, or is gone. Idempotent.
    pub(crate) fn remove(&self, id: SessionId) {
        let mut sessions = self.lock();
        let Some(entry) = sessions.entries.remove(&id) else { return };
        if entry.signal.is_some() {
            sessions.unlink(id, &entry.path);
            sessions.open -= 1;
        } else {
            drop(sessions);
            self.ending.send_modify(|count| *count -= 1);
        }
    }

    /// Tells the sessions to end that `trust` does not vouch for at `now`, and no
    /// others, and gives their ids. Costs a look at each CA that has sessions, and a
    /// look at each session of those that `trust` does not trust.
    ///
    /// MUST NOT run twice at a time: later verdicts would be overwritten by earlier ones. [`crate::BrokerTrust`] sees to it.
    pub(crate) fn cut(
        &self,
        trust: &RevisionTrust,
        previous: &RevisionTrust,
        now: UnixTime,
        cut: &Cut,
    ) -> Vec<SessionId> {
        let mut losers = self.move_to_twins(trust, previous, now);
        let suspects = self.suspects(trust, now);
        // Without the lock: a chain that has another path costs signatures, and new
        // sessions must not wait for them. They are checked against `trust` anyway.
        let mut moved = Vec::new();
        for (id, path) in suspects {
            match trust.verify(&path.chain, now) {
                Ok(other) => moved.push((id, other)),
                Err(_) => losers.push(id),
            }
        }
        let mut sessions = self.lock();
        for (id, path) in moved {
            sessions.change_path(id, path);
        }
        losers.retain(|id| sessions.tell(*id, cut.clone()));
        self.ending.send_modify(|count| *count += losers.len());
        losers
    }

    /// Names the open sessions, the oldest first.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        let mut ids: Vec<_> = self.lock().entries.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Tells one session to end, whatever vouches for it; gives whether it was open.
    pub(crate) fn end(&self, id: SessionId, cut: Cut) -> bool {
        let mut sessions = self.lock();
        let told = sessions.tell(id, cut);
        self.ending.send_modify(|count| *count += usize::from(told));
        told
    }

    /// Moves whole groups whose CA certificate has an active twin, and gives the
    /// sessions whose own certificate is denied or expired, whatever their path.
    fn move_to_twins(
        &self,
        trust: &RevisionTrust,
        previous: &RevisionTrust,
        now: UnixTime,
    ) -> Vec<SessionId> {
        let mut sessions = self.lock();
        let untrusted: Vec<Arc<IssuerPath>> =
            sessions.by_path.keys().filter(|path| !trust.set().trusts(path, now)).map(Arc::clone).collect();
        for issuers in untrusted {
            if let Some(twin) = trust.set().through_twin(&issuers, previous.set(), now).map(Arc::new) {
                let members = sessions.by_path.get(&issuers).cloned().unwrap_or_default();
                for id in members {
                    let Some(entry) = sessions.entries.get(&id) else { continue };
                    let path = TrustPath { issuers: Arc::clone(&twin), ..(*entry.path).clone() };
                    sessions.change_path(id, Arc::new(path));
                }
            }
        }
        sessions.with_untrusted_leaf(trust, now)
    }

    fn suspects(&self, trust: &RevisionTrust, now: UnixTime) -> Vec<(SessionId, Arc<TrustPath>)> {
        let sessions = self.lock();
        let untrusted = sessions.by_path.iter().filter(|(issuers, _)| !trust.set().trusts(issuers, now));
        untrusted
            .flat_map(|(_, members)| members)
            .filter_map(|id| Some((*id, Arc::clone(&sessions.entries.get(id)?.path))))
            .collect()
    }

    /// Waits until no session is ending; `Err` with their number when `limit` is
    /// over.
    pub(crate) async fn settled(&self, limit: Duration) -> Result<(), usize> {
        let mut ending = self.ending.subscribe();
        let wait = ending.wait_for(|count| *count == 0);
        match tokio::time::timeout(limit, wait).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.ending()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn link(&mut self, id: SessionId, path: &TrustPath) {
        self.by_path.entry(Arc::clone(&path.issuers)).or_default().insert(id);
        self.by_leaf.insert((prefix(&path.leaf.sha256), id));
        self.by_leaf.insert((prefix(&path.leaf.spki_sha256), id));
        self.by_expiry.insert((path.leaf_validity.not_after, id));
    }

    fn unlink(&mut self, id: SessionId, path: &TrustPath) {
        if let Some(members) = self.by_path.get_mut(&path.issuers) {
            members.remove(&id);
            if members.is_empty() {
                self.by_path.remove(&path.issuers);
            }
        }
        self.by_leaf.remove(&(prefix(&path.leaf.sha256), id));
        self.by_leaf.remove(&(prefix(&path.leaf.spki_sha256), id));
        self.by_expiry.remove(&(path.leaf_validity.not_after, id));
    }

    fn change_path(&mut self, id: SessionId, path: Arc<TrustPath>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.signal.is_none() {
            return;
        }
        let old = std::mem::replace(&mut entry.path, Arc::clone(&path));
        self.unlink(id, &old);
        self.link(id, &path);
    }

    /// Tells one session to end; gives whether it was open.
    fn tell(&mut self, id: SessionId, cut: Cut) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let Some(signal) = entry.signal.take() else { return false };
        let path = Arc::clone(&entry.path);
        self.unlink(id, &path);
        self.open -= 1;
        // A receiver that is gone is a session that is being removed just now: its
        // `remove` waits for the lock and will count it down.
        let _ = signal.send(cut);
        true
    }

    fn with_untrusted_leaf(&self, trust: &RevisionTrust, now: UnixTime) -> Vec<SessionId> {
        let of = |digest: &Sha256| (prefix(digest), SessionId(0))..=(prefix(digest), SessionId(u64::MAX));
        let denied = trust
            .set()
            .denied()
            .flat_map(|digest| self.by_leaf.range(of(digest)))
            .map(|(_, id)| *id)
            .filter(|id| self.entries.get(id).is_some_and(|entry| trust.set().denies(&entry.path.leaf)));
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let expired = self.by_expiry.range(..(now, SessionId(0))).map(|(_, id)| *id);
        denied.chain(expired).collect()
    }
}

fn prefix(key: &Sha256) -> u64 {
    let (first, _) = key.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}
