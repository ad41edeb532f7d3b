//! The rules as a caller of the domain sees them: given a log, when a command
//! comes, then these events follow or that rejection.

mod batches;
mod fixtures;
mod given;
mod golden;
mod inconsistent_events;
mod instances;
mod made_again;
mod memory_store;
mod properties;
mod random;
mod register_codes;
mod registration;
mod request_ids;
mod switch;
