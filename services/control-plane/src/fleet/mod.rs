//! What the brokers say that they did, and who waits for it.
//!
//! ```text
//! ReportReceipt (gRPC) ─▶ statement ─▶ intake ─▶ store ─▶ view ─▶ ListBrokers, propagation, wait
//! receipt subjects (NATS, wire) ──▲      │ commits batches   ▲ hint
//! ```
//!
//! Receipts come to whichever replica the broker or NATS chose; what they say is kept in
//! the store, and every replica answers from there. Signed heads that come with receipts, or
//! at the opening of a stream, go to the witness. None of it is part of the log, and
//! nothing on the way of a change waits for it, unless its caller asked to.

pub(crate) mod census;
mod instruments;
pub(crate) mod intake;
mod looks;
mod queue;
pub mod statement;
pub(crate) mod view;
pub(crate) mod wire;
pub(crate) mod witness;

pub(crate) use instruments::ReceiptVia;
pub(crate) use intake::ReceiptIntake;
pub(crate) use view::FleetView;
pub(crate) use witness::{Shown, Witness};
