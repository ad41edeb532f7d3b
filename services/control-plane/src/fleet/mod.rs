//! What the brokers say that they did, and who waits for it.
//!
//! ```text
//! ReportReceipt (gRPC) ─▶ statement ─▶ intake ─▶ store ─▶ view ─▶ ListBrokers, propagation, wait
//! receipt subjects (NATS, wire) ──▲      │ commits batches   ▲ hint
//! ```
//!
//! Receipts come to whichever replica the broker or NATS chose; what they say is kept in
//! the store, and every replica answers from there. None of it is part of the log, and
//! nothing on the way of a change waits for it, unless its caller asked to.

pub mod census;
mod instruments;
pub mod intake;
mod queue;
pub mod statement;
pub mod view;
pub mod wire;

pub use instruments::ReceiptVia;
pub use intake::ReceiptIntake;
pub use view::FleetView;
