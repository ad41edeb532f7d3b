//! The compiler of RAM documents against an evaluator that reads them straight, and both
//! readers against files that nobody meant well.

#![expect(clippy::unwrap_used, reason = "the whole file is a test; clippy knows only of functions marked so")]

mod differential;
mod documents;
mod hostile;
mod reference;
