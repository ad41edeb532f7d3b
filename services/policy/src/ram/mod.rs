//! RAM policy documents, `.json`, compiled to Cedar.
//!
//! The document is the vendor's, with one element more: RAM keeps outside of a document to
//! whom it is attached, and here `Principal` says it.
//!
//! ```json
//! {
//!   "Version": "1",
//!   "Principal": ["ops-*", "spiffe://example.org/onboarding"],
//!   "Statement": [{
//!     "Effect": "Allow",
//!     "Action": ["mq:UnregisterCaCertificate", "mq:MqttInstanceAccess"],
//!     "Resource": "acs:mq:*:1234567890:fleet-?",
//!     "Condition": {"IpAddress": {"acs:SourceIp": ["10.0.0.0/8"]}}
//!   }]
//! }
//! ```
//!
//! A statement applies where a principal, an action, a resource and every condition fit. Of
//! several values one has to fit; of the values of `NotIpAddress` none may. What is not known
//! here is refused, never ignored: `NotAction` left out of a denial would allow.

mod compile;
mod condition;
mod document;

pub(crate) use compile::compile;

#[cfg(test)]
mod tests;
