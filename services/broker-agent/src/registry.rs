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

use catrust_domain::Sha256;
use rustls::pki_types::UnixTime;
use tokio::sync::{oneshot, watch};

use crate::session::Cut;
use crate::trust_set::TrustSet;
use crate::vouch::{IssuerPath, Vouch};

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
    /// Open sessions by the first octets of the device's own key: a device that uses
    /// the key of a CA is found without a walk over all.
    by_leaf_key: BTreeSet<(u64, SessionId)>,
    open: usize,
}

#[derive(Debug)]
struct Entry {
    vouch: Arc<Vouch>,
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
        groups.filter(|(path, _)| path.anchor == *anchor).map(|(_, members)| members.len()).sum()
    }

    /// Enters a session. The caller MUST compare with the trust of the moment after
    /// this, not before: a change that came in between has not seen the session.
    pub(crate) fn register(&self, vouch: &Arc<Vouch>) -> (SessionId, oneshot::Receiver<Cut>) {
        let (signal, told) = oneshot::channel();
        let mut sessions = self.lock();
        sessions.last_id += 1;
        let id = SessionId(sessions.last_id);
        sessions.entries.insert(id, Entry { vouch: Arc::clone(vouch), signal: Some(signal) });
        sessions.link(id, vouch);
        sessions.open += 1;
        (id, told)
    }

    /// Notes that a session forwards nothing any more, or is gone. Idempotent.
    pub(crate) fn remove(&self, id: SessionId) {
        let mut sessions = self.lock();
        let Some(entry) = sessions.entries.remove(&id) else { return };
        if entry.signal.is_some() {
            sessions.unlink(id, &entry.vouch);
            sessions.open -= 1;
        } else {
            drop(sessions);
            self.ending.send_modify(|count| *count -= 1);
        }
    }

    /// Tells the sessions to end that `set` does not vouch for at `now`, and no
    /// others, and gives their ids. Costs a look at each CA that has sessions, and a
    /// look at each session of those that `set` does not trust.
    ///
    /// MUST NOT run twice at a time: a later set's verdicts would be overwritten by
    /// an earlier one's. [`crate::BrokerTrust`] sees to it.
    pub(crate) fn cut(
        &self,
        set: &TrustSet,
        previous: &TrustSet,
        now: UnixTime,
        cut: &Cut,
    ) -> Vec<SessionId> {
        let mut losers = self.move_to_twins(set, previous, now);
        let suspects = self.suspects(set, now);
        // Without the lock: a chain that has another path costs signatures, and new
        // sessions must not wait for them. They are checked against `set` anyway.
        let mut moved = Vec::new();
        for (id, vouch) in suspects {
            match set.verify(&vouch.chain, now) {
                Ok(other) => moved.push((id, other)),
                Err(_) => losers.push(id),
            }
        }
        let mut sessions = self.lock();
        for (id, vouch) in moved {
            sessions.change_vouch(id, vouch);
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
    /// sessions whose own key is denied, whatever their path.
    fn move_to_twins(&self, set: &TrustSet, previous: &TrustSet, now: UnixTime) -> Vec<SessionId> {
        let mut sessions = self.lock();
        let untrusted: Vec<Arc<IssuerPath>> =
            sessions.by_path.keys().filter(|path| !set.trusts(path, now)).map(Arc::clone).collect();
        for path in untrusted {
            if let Some(twin) = set.through_twin(&path, previous, now).map(Arc::new) {
                let members = sessions.by_path.get(&path).cloned().unwrap_or_default();
                for id in members {
                    let Some(entry) = sessions.entries.get(&id) else { continue };
                    let vouch = Vouch { path: Arc::clone(&twin), ..(*entry.vouch).clone() };
                    sessions.change_vouch(id, Arc::new(vouch));
                }
            }
        }
        sessions.with_denied_key(set)
    }

    fn suspects(&self, set: &TrustSet, now: UnixTime) -> Vec<(SessionId, Arc<Vouch>)> {
        let sessions = self.lock();
        let untrusted = sessions.by_path.iter().filter(|(path, _)| !set.trusts(path, now));
        untrusted
            .flat_map(|(_, members)| members)
            .filter_map(|id| Some((*id, Arc::clone(&sessions.entries.get(id)?.vouch))))
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
    fn link(&mut self, id: SessionId, vouch: &Vouch) {
        self.by_path.entry(Arc::clone(&vouch.path)).or_default().insert(id);
        self.by_leaf_key.insert((prefix(&vouch.leaf_key), id));
    }

    fn unlink(&mut self, id: SessionId, vouch: &Vouch) {
        if let Some(members) = self.by_path.get_mut(&vouch.path) {
            members.remove(&id);
            if members.is_empty() {
                self.by_path.remove(&vouch.path);
            }
        }
        self.by_leaf_key.remove(&(prefix(&vouch.leaf_key), id));
    }

    fn change_vouch(&mut self, id: SessionId, vouch: Arc<Vouch>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.signal.is_none() {
            return;
        }
        let old = std::mem::replace(&mut entry.vouch, Arc::clone(&vouch));
        self.unlink(id, &old);
        self.link(id, &vouch);
    }

    /// Tells one session to end; gives whether it was open.
    fn tell(&mut self, id: SessionId, cut: Cut) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let Some(signal) = entry.signal.take() else { return false };
        let vouch = Arc::clone(&entry.vouch);
        self.unlink(id, &vouch);
        self.open -= 1;
        // A receiver that is gone is a session that is being removed just now: its
        // `remove` waits for the lock and will count it down.
        let _ = signal.send(cut);
        true
    }

    fn with_denied_key(&self, set: &TrustSet) -> Vec<SessionId> {
        let range = |key: &Sha256| (prefix(key), SessionId(0))..=(prefix(key), SessionId(u64::MAX));
        set.denied_keys()
            .flat_map(|key| self.by_leaf_key.range(range(key)))
            .map(|(_, id)| *id)
            .filter(|id| self.entries.get(id).is_some_and(|entry| set.denies_key(&entry.vouch.leaf_key)))
            .collect()
    }
}

fn prefix(key: &Sha256) -> u64 {
    let (first, _) = key.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}
