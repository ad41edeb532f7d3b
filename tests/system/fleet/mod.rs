//! Receipts and propagation: who says what, who knows it, and who waits for it.

pub mod broker;
mod command;
mod hostile;
mod receipts;
mod replicas;
mod silence;
mod waiting;
