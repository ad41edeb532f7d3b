//! NATS subjects of the feed. Their tokens are validated where they enter the
//! system (see `catrust_domain::identifiers`), so nothing is escaped here.

use catrust_domain::{BrokerId, InstanceId, Sha256};

/// Every subject that the stream holds.
pub const STREAM_SUBJECTS: [&str; 2] = ["catrust.v1.trust.>", "catrust.v1.log.>"];

/// Subject on which the servers tell each other how much each user has called: core NATS,
/// not in the stream. Internal: the messages are sealed with a key of the servers, and
/// their form may change with any version.
pub const SPENDING: &str = "catrust.v1.internal.spending";

/// Subject of the changes of one CA certificate.
#[must_use]
pub fn trust(instance_id: &InstanceId, sha256: &Sha256) -> String {
    format!("catrust.v1.trust.{instance_id}.{sha256}")
}

/// Filter for the changes of every CA certificate of an instance.
#[must_use]
pub fn trust_of_instance(instance_id: &InstanceId) -> String {
    format!("catrust.v1.trust.{instance_id}.*")
}

/// Subject of any other event.
#[must_use]
pub fn log(instance_id: &InstanceId, event_type: &str) -> String {
    format!("catrust.v1.log.{instance_id}.{event_type}")
}

/// Subject of the heads of an instance: core NATS, not in the stream.
#[must_use]
pub fn head(instance_id: &InstanceId) -> String {
    format!("catrust.v1.head.{instance_id}")
}

/// Subject of the changes of an instance that the stream will only come to later: core NATS, not
/// in the stream.
#[must_use]
pub fn live(instance_id: &InstanceId) -> String {
    format!("catrust.v1.live.{instance_id}")
}

/// Subject of the key sets, for brokers of every instance: core NATS, not in the stream.
pub const KEYS: &str = "catrust.v1.keys";

/// Subject of the signed checkpoints of the log, for witnesses: core NATS, not in the stream.
pub const CHECKPOINT: &str = "catrust.v1.checkpoint";

/// Subject of the receipts of a broker: core NATS, not in the stream.
#[must_use]
pub fn receipt(instance_id: &InstanceId, broker_id: &BrokerId) -> String {
    format!("catrust.v1.receipt.{instance_id}.{broker_id}")
}
