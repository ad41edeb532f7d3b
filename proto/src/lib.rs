//! The contract: `catrust/v1/*.proto` and the code generated from it, nothing by hand
//! but [`Timestamp`].
//!
//! [`v1`] holds the messages, their ProtoJSON (`serde`), and, with the feature `services`,
//! the tonic clients and servers. The comments of the `.proto` files are the documentation.

mod timestamp;

pub use timestamp::Timestamp;

/// Package `catrust.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    reason = "generated; the .proto files carry the comments, and the generator its own style"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/catrust.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/catrust.v1.serde.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of the contract, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/catrust_descriptor.bin"));
