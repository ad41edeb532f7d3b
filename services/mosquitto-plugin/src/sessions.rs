//! The registry of live sessions: which CA certificate vouches for whom.
//!
//! Thanks to it a change costs the kicks alone. Verifying every live device again, on the
//! broker's only thread, would take most of the time.

use std::collections::HashMap;

use catrust_device_trust::TrustPath;

/// Names a client for as long as it is connected: the broker's address of it, never
/// followed in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(pub usize);

/// A live session.
#[derive(Clone, Debug)]
pub struct DeviceSession {
    /// MQTT client identifier.
    pub client_id: String,
    /// The path that vouches for it.
    pub path: TrustPath,
}

/// The live sessions of devices with certificates.
#[derive(Debug, Default)]
pub struct Sessions {
    by_client: HashMap<ClientKey, DeviceSession>,
}

impl Sessions {
    /// Enters a session, in place of what had its key.
    pub fn insert(&mut self, key: ClientKey, session: DeviceSession) {
        self.by_client.insert(key, session);
    }

    /// Takes a session out; nothing happens where there is none.
    pub fn remove(&mut self, key: ClientKey) {
        self.by_client.remove(&key);
    }

    /// The session of a client.
    #[must_use]
    pub fn find(&self, key: ClientKey) -> Option<&DeviceSession> {
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
    pub fn shaken(&mut self, holds: impl Fn(&TrustPath) -> bool) -> Vec<(ClientKey, &mut DeviceSession)> {
        let sessions = self.by_client.iter_mut().filter(|(_, session)| !holds(&session.path));
        let mut shaken: Vec<_> = sessions.map(|(key, session)| (*key, session)).collect();
        shaken.sort_unstable_by_key(|(key, _)| *key);
        shaken
    }
}
