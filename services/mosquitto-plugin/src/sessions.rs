//! The registry of live sessions: which CA certificate vouched for whom.
//!
//! Thanks to it a change costs the kicks alone. Re-verifying every live device on the
//! broker's only thread took most of the time in a prototype (BROKERS.md §1.3).

use std::collections::HashMap;

use catrust_domain::Sha256;

use crate::trust::Vouched;

/// Names a client for as long as it is connected: the broker's address of it, never
/// followed in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(pub usize);

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// MQTT client identifier.
    pub client_id: String,
    /// SHA-256 of the device's certificate.
    pub leaf: Sha256,
    /// The path that vouches for it.
    pub vouched: Vouched,
}

/// The live sessions of devices with certificates.
#[derive(Debug, Default)]
pub struct Sessions {
    by_client: HashMap<ClientKey, Session>,
}

impl Sessions {
    /// Enters a session, in place of what had its key.
    pub fn insert(&mut self, key: ClientKey, session: Session) {
        self.by_client.insert(key, session);
    }

    /// Takes a session out; nothing happens where there is none.
    pub fn remove(&mut self, key: ClientKey) {
        self.by_client.remove(&key);
    }

    /// The session of a client.
    #[must_use]
    pub fn find(&self, key: ClientKey) -> Option<&Session> {
        self.by_client.get(&key)
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.by_client.len() as u64
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    /// The sessions whose path `holds` says no to; ascending by key.
    #[must_use]
    pub fn shaken(&self, holds: impl Fn(&Vouched) -> bool) -> Vec<ClientKey> {
        let mut keys: Vec<_> = self
            .by_client
            .iter()
            .filter(|(_, session)| !holds(&session.vouched))
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Gives a session another path. Nothing happens where there is none.
    pub fn vouch_again(&mut self, key: ClientKey, vouched: Vouched) {
        if let Some(session) = self.by_client.get_mut(&key) {
            session.vouched = vouched;
        }
    }
}
