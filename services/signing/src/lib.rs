//! What is signed, with which key, and who believes it.
//!
//! [`canonical`] says which bytes of a message a signature covers, [`signing`] what
//! keys are, [`pem`] how they are written down; [`key_set`] is how a root key vouches for
//! the keys of the feed, and [`key_ring`] what a reader believes at a moment. Servers,
//! agents and the command line share it, so it knows no network, no runtime and no clock:
//! times are arguments.

pub mod canonical;
pub mod key_ring;
pub mod key_set;
pub mod note;
pub mod pem;
pub mod signing;

pub use catrust_domain::{Timestamp, error_chain};

pub use canonical::{KeyRefusal, Keys, NotCanonical, Signed, SigningInput, Verified, VerifyError, timestamp};
pub use key_ring::{Adoption, KeyRing, KeysAt};
pub use key_set::{EventKey, KeySet, KeySetError, Present};
pub use signing::{KeyError, SigningKey, TrustKeys};
