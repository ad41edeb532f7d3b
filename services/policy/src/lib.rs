//! Who may do what: the permission rules of catrust.
//!
//! A [`PolicyBundle`] is a folder of files, `DIR/ACCOUNT/NAME.cedar` and `DIR/ACCOUNT/NAME.json`.
//! [`Policies::compile`] turns it into one Cedar policy set for each account, checked against
//! the [`SCHEMA`]; [`Policies::decide`] answers an [`AccessRequest`] by the set of the
//! caller's account. A denial wins, and nothing is allowed by default.
//!
//! ```text
//! folder ──▶ PolicyBundle ──▶ .cedar ─────────────────┐
//!                       .json ─▶ ram::compile ──┴─▶ validated set per account ──▶ Decision
//! ```
//!
//! Knows the disk in [`PolicyBundle::read`] and nowhere else: no clock, no network, no other room.
//! Address and time of a call are arguments. The owner check is not here: a policy can
//! allow a call on somebody else's instance, and the server refuses it all the same.

mod account;
mod action;
mod cache;
mod cedar_file;
mod decision;
mod dependence;
mod depth;
mod folder;
mod pattern;
mod policies;
mod problem;
mod ram;
mod request;
mod schema;

pub use action::Action;
pub use decision::Decision;
pub use folder::{PolicyBundle, PolicyFile};
pub use policies::Policies;
pub use problem::{PolicyProblems, Problem};
pub use request::{AccessRequest, Resource};
pub use schema::SCHEMA;
