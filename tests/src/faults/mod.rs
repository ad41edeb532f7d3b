//! Real processes under real faults: what callers, devices and brokers saw, and whether it can
//! be true.
//!
//! ```text
//! seed ─▶ faults in turn ─▶ servers, Postgres, NATS, a gate
//!                               ▲             │
//! callers, devices ─────────────┘             ▼
//!      └──────────▶ History ─▶ checker ◀── the log at the end
//! ```
//!
//! The seed decides which faults come, how long each lasts, and what callers do; when exactly
//! an answer comes is the machine's. So a run can be repeated, though not to the microsecond.

pub mod checker;
pub mod fault;
pub mod history;
pub mod run;
