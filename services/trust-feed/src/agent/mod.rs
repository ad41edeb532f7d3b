//! The reading side of the feed: from signed messages to enforced trust.
//!
//! ```text
//! NATS ──┐                      ┌─▶ Enforcer  (1) swap (2) retire resumption (3) cut
//!        ├─▶ driver ─▶ core ─▶ ─┼─▶ store     (4) bundle, changes, head, with fsync
//! gRPC ──┘  (tasks)  (pure)     └─▶ receipt   (5) NATS or gRPC
//! ```
//!
//! [`core`] decides, without I/O and clock; [`store`] keeps signed messages; the sources
//! carry; [`Agent::start`] puts them together around an [`Enforcer`], which is the
//! only part that a new kind of broker has to write.
//!
//! | the last valid head is | [`Freshness`] | what happens |
//! |---|---|---|
//! | younger than the soft budget (6 s) | `Fresh` | |
//! | younger than the hard budget (10 min) | `SoftStale` | served on, another source, an alarm |
//! | older, or there was none | `HardStale` | nobody new is trusted; sessions stay |

mod chance;
pub mod core;
mod driver;
pub mod enforcer;
mod handle;
mod receipt;
mod settings;
mod source;
pub mod store;
mod testimony;

pub use catrust_domain::Enforcement;
pub use core::{MessageRefusal, SourceKind};
pub use enforcer::{AgentTrust, Applied, Enforcer, Freshness, NotApplied};
pub use handle::{Agent, AgentEnded, AgentHandle, AgentStatus, StartError};
pub use settings::{AgentSettings, GrpcSettings, UnusableSettings};
pub use store::StateFileError;
