//! Signatures over what the store keeps for other replicas, as the store sees them: it
//! knows neither keys nor algorithms.

use std::fmt;

/// A signature by a server key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Name of the key.
    pub key_id: String,
    /// The signature.
    pub value: Vec<u8>,
}

/// Signs with this server's key, and says which signatures are believed.
pub trait Notary: fmt::Debug + Send + Sync {
    /// Name of the key that [`Notary::seal`] signs with now; `None` where there is none.
    fn key_id(&self) -> Option<String>;

    /// Signs `statement`; `None` where the server has no key that is in force.
    fn seal(&self, statement: &[u8]) -> Option<Seal>;

    /// Checks that a server key which is believed, and not revoked, signed `statement`.
    ///
    /// # Errors
    /// The text says why not.
    fn check(&self, statement: &[u8], seal: &Seal) -> Result<(), String>;

    /// As [`Notary::check`] for what a log has: keys that are expired or revoked by now count
    /// too, since what has happened in the log is not undone by revoking a key.
    ///
    /// # Errors
    /// The text says why not.
    fn check_past(&self, statement: &[u8], seal: &Seal) -> Result<(), String>;
}

/// Knows no key: signs nothing, and believes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeys;

impl Notary for NoKeys {
    fn key_id(&self) -> Option<String> {
        None
    }

    fn seal(&self, _statement: &[u8]) -> Option<Seal> {
        None
    }

    fn check(&self, _statement: &[u8], seal: &Seal) -> Result<(), String> {
        Err(format!("key {:?} is not known: no key is", seal.key_id))
    }

    fn check_past(&self, statement: &[u8], seal: &Seal) -> Result<(), String> {
        self.check(statement, seal)
    }
}
