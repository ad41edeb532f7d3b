//! The wire between the log and the brokers.
//!
//! [`message`] says what each row of the log looks like to brokers, the room `signing`
//! how it is signed and verified; [`feed`] is the port that carries it, with two
//! implementations, [`nats`] and [`in_process`], that both run the suite in `contract`;
//! [`parse`] and [`bundle`] fold signed messages into the trust of an instance, and
//! [`agent`] is the whole reading side around them: order, staleness, persistence,
//! receipts, for whatever enforces trust.
//!
//! The crate knows nothing of SQL, of gRPC servers, or of what enforces trust.

pub mod agent;
pub mod bundle;
mod epoch;
pub mod feed;
pub mod in_process;
pub mod message;
mod message_cache;
pub mod nats;
pub mod parse;
pub mod subject;

#[cfg(feature = "contract")]
pub mod contract;

use catrust_signing::pem;
pub use catrust_signing::{
    KeyError, KeyRing, NotCanonical, Signed, SigningKey, TrustKeys, Verified, VerifyError, canonical, signing,
};

pub use bundle::{ChangeOutcome, HeadVerdict, TrustError, TrustState};
pub use feed::{FeedError, FeedItem, FeedStream, FeedTail, GapReason, KeptMessage, TailMessage, TrustFeed};
pub use in_process::InProcessFeed;
pub use message::{FeedBody, FeedMessage, MessageError, TrustPoint};
pub use message_cache::MessageCache;
pub use nats::{
    IncomingReceipt, NatsFeed, NatsSettings, NoReceipt, ReceiptStream, SpendingSender, SpendingStream,
    StreamOutline, StreamUse,
};
