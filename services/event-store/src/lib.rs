//! The event log and its one transaction.
//!
//! [`EventStore`] is the port, in parts; `engine` implements it once for [`postgres`] and
//! [`sqlite`], and both run the suite in `contract` (a feature, for tests). The rules are not here: a store loads rows,
//! hands them to [`catrust_domain::batch`], and writes what comes back.

mod begin;
mod bundle;
mod comparison;
mod damage;
mod engine;
mod epochs;
pub mod error;
#[cfg(feature = "contract")]
pub mod faults;
#[cfg(not(feature = "contract"))]
mod faults;
pub mod freshness;
mod ground;
mod known;
mod owned_task;
pub mod postgres;
mod queries;
mod reads;
mod rebuild;
mod receipts;
mod recent;
pub mod refusals;
mod replies;
pub mod report;
mod row;
mod rows;
mod schema;
pub mod search;
pub mod sqlite;
#[cfg(feature = "contract")]
pub mod statements;
mod store;
mod tables;
mod tree;
mod value;
mod verify;
mod walk;

#[cfg(feature = "contract")]
pub mod contract;

use std::sync::Arc;

use catrust_domain::{CaCertificate, Rejection, Reply, SerialNumber, Timestamp};

pub use begin::{BegunEpoch, EpochPlan, LogStand, LostTrust, MadeAgain, NothingLost};
pub use error::StoreError;
pub use freshness::{BootTime, FreshnessLease};
pub use refusals::{RefusalFilter, RefusedCall};
pub use report::{MigrationReport, RebuildReport, VerifyReport};
pub use search::{SearchScope, TrustChangePage, TrustChangeSearch};
pub use store::{
    CommandStore, EpochStore, EventLog, EventStore, EvidenceStore, FleetStore, Ground, GroundReport,
    Maintenance, PrimaryInUse, PublisherLease, ReadModelStore, RefusalStore,
};

/// Reads the wall clock. The store calls it once per batch, under the append lock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What each command of a batch came to, in the order of the commands.
pub type CommandResults = Vec<Result<Reply, Rejection>>;

/// Most commands that one [`CommandStore::append`] takes.
pub const MAX_BATCH: usize = 256;

/// Most receipts that one [`FleetStore::record_receipts`] takes.
pub const MAX_RECEIPTS: usize = 1_024;

/// Brokers of one instance, about: in the batch that reaches it the last ones may go
/// over. Names come from outside, and each costs a row.
pub const MAX_BROKERS: usize = 10_000;

/// Which trust bundle of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleAt {
    /// The current one.
    Now,
    /// The one at this revision.
    Revision(u64),
    /// The one that was current at this time.
    Time(Timestamp),
}

/// Which CA certificates a list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// All of them.
    Any,
    /// Active ones.
    Active,
    /// Inactive ones, of either scope.
    Inactive,
}

/// A CA certificate with its twins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateView {
    /// The certificate.
    pub certificate: CaCertificate,
    /// Serial numbers of the others of the instance with the same key, ascending.
    pub same_key_sns: Vec<SerialNumber>,
}

/// A page of a list, and how long the list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The page.
    pub items: Vec<T>,
    /// Items over all pages, at the moment of the page.
    pub total: u64,
}
