//! Hostile input, at every door of the control plane: nothing panics, and what comes
//! through is what was signed, or says the same as what went in.
//!
//! One test a target. `make fuzz` gives each a million inputs; a failure prints the
//! input, and the seed to have it again.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod certificates;
mod evidence;
mod names;
mod policies;
mod runner;
mod settings;
mod tokens;
mod wire;
