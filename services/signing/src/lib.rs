//! What is signed, with which key, and who believes it.
//!
//! [`canonical`] says which octets of a message a signature covers, [`signing`] what
//! keys are, [`pem`] how they are written down. Servers, agents and the command line
//! share it, so it knows no network, no runtime and no clock: times are arguments.

pub mod canonical;
pub mod pem;
pub mod signing;

pub use canonical::{NotCanonical, Signed, SigningInput, Verified, VerifyError, timestamp};
pub use signing::{KeyError, SigningKey, TrustKeys};
