//! Requests and responses, as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catrust_domain::{CaState, InactivationScope, InstanceId, Sha256};
use serde::{Deserialize, Serialize};

/// What the agent asks for.
///
/// The body is not flattened into it: serde refuses unknown fields only without
/// flattening, and a field that one side does not know must not be lost in silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Number that the response repeats, so that an answer that comes after its time
    /// is not taken for the next one.
    pub id: u64,
    /// What is asked for.
    pub body: RequestBody,
}

/// The kinds of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RequestBody {
    /// Replaces the whole trust.
    Bundle(Bundle),
    /// Lengthens the time for which the trust may be relied on.
    Renewal(Renewal),
}

/// The whole trust: what was before is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Instance that it belongs to. The first one binds the plugin, unless its option
    /// `instance` did.
    pub instance_id: InstanceId,
    /// Revision of the instance. MUST NOT go down, unless `takes_back` says so.
    pub revision: u64,
    /// Digest over `entries`; the plugin computes it again, and refuses another one.
    pub digest: Sha256,
    /// CA certificates with their states.
    pub entries: Vec<Entry>,
    /// MUST be true for a bundle without entries: an empty list by mistake would put
    /// every device out.
    pub explicit_empty: bool,
    /// Milliseconds for which new sessions may be accepted on the strength of this
    /// bundle; 0 for none at all. Live sessions stay afterwards.
    pub admit_for_ms: u64,
    /// Whether the last wills of sessions that are cut now shall be published.
    pub with_will: bool,
    /// The bundle in force was signed with a key that is revoked: this one counts, whatever
    /// revision that one has. Left out where it is false, so that a plugin from before takes
    /// everything else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub takes_back: bool,
}

/// The trust that the plugin has is still the current one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// Revision that the plugin MUST have; it refuses otherwise, and wants a bundle.
    pub revision: u64,
    /// Digest that it MUST have.
    pub digest: Sha256,
    /// As in [`Bundle`], counted from now.
    pub admit_for_ms: u64,
}

/// A CA certificate and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// DER, in base64.
    pub certificate: String,
    /// Whether its devices are accepted.
    pub state: EntryState,
}

/// The certificate is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate is not base64")]
pub struct InvalidEntry;

impl Entry {
    /// Makes an entry.
    #[must_use]
    pub fn new(der: &[u8], state: CaState) -> Self {
        Self { certificate: STANDARD.encode(der), state: state.into() }
    }

    /// The certificate's DER.
    ///
    /// # Errors
    /// [`InvalidEntry`].
    pub fn der(&self) -> Result<Vec<u8>, InvalidEntry> {
        STANDARD.decode(&self.certificate).map_err(|_| InvalidEntry)
    }
}

/// [`CaState`] in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntryState {
    /// Its devices are accepted.
    Active,
    /// Its key is denied on every path.
    InactiveKey,
    /// The certificate alone is denied.
    InactiveCertificate,
}

impl From<CaState> for EntryState {
    fn from(state: CaState) -> Self {
        match state {
            CaState::Active => Self::Active,
            CaState::Inactive(InactivationScope::Key) => Self::InactiveKey,
            CaState::Inactive(InactivationScope::Certificate) => Self::InactiveCertificate,
        }
    }
}

impl From<EntryState> for CaState {
    fn from(state: EntryState) -> Self {
        match state {
            EntryState::Active => Self::Active,
            EntryState::InactiveKey => Self::Inactive(InactivationScope::Key),
            EntryState::InactiveCertificate => Self::Inactive(InactivationScope::Certificate),
        }
    }
}

/// Whether the plugin did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RequestOutcome {
    /// The trust is in force, and the sessions that it does not vouch for are closed.
    Applied,
    /// Nothing changed; `reason` says why.
    Refused,
}

/// The plugin's answer. Fields may be added: readers pass over those they don't know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Number of the request; 0 where it could not be read.
    pub id: u64,
    /// Whether it was done.
    pub outcome: RequestOutcome,
    /// Why not, for people; empty where it was.
    #[serde(default)]
    pub reason: String,
    /// Revision that the plugin has now; 0 before the first bundle.
    pub revision: u64,
    /// Digest that it has now, as computed by the plugin; absent before the first bundle.
    #[serde(default)]
    pub digest: Option<Sha256>,
    /// Sessions closed because of the request.
    pub kicked: u64,
    /// Sessions of devices with certificates that are open now.
    pub open: u64,
    /// Milliseconds that the broker's only thread spent on the request.
    pub ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The agent and the plugin may be of different versions for the length of an
    /// upgrade, so that the spelling is fixed here.
    #[test]
    fn the_spelling_on_the_wire_stays() {
        let bundle = Bundle {
            instance_id: "factory".parse().unwrap(),
            revision: 7,
            digest: Sha256([0xab; 32]),
            entries: vec![Entry::new(&[1, 2, 3], CaState::Inactive(InactivationScope::Key))],
            explicit_empty: false,
            admit_for_ms: 60_000,
            with_will: true,
            takes_back: false,
        };
        let request = Request { id: 9, body: RequestBody::Bundle(bundle) };
        let digest = "ab".repeat(32);
        let expected = format!(
            r#"{{"id":9,"body":{{"BUNDLE":{{"instance_id":"factory","revision":7,"digest":"{digest}","entries":[{{"certificate":"AQID","state":"INACTIVE_KEY"}}],"explicit_empty":false,"admit_for_ms":60000,"with_will":true}}}}}}"#
        );
        assert_eq!(serde_json::to_string(&request).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Request>(&expected).unwrap(), request);
    }

    #[test]
    fn unknown_and_missing_fields_of_requests_are_refused() {
        let digest = "ab".repeat(32);
        let renewal = format!(r#""revision":1,"digest":"{digest}","admit_for_ms":1"#);
        let good = format!(r#"{{"id":1,"body":{{"RENEWAL":{{{renewal}}}}}}}"#);
        assert!(serde_json::from_str::<Request>(&good).is_ok());
        for bad in [
            format!(r#"{{"id":1,"body":{{"RENEWAL":{{{renewal},"x":1}}}}}}"#),
            format!(r#"{{"id":1,"body":{{"RENEWAL":{{{renewal}}}}},"x":1}}"#),
            format!(r#"{{"id":1,"body":{{"RENEWAL":{{"revision":1,"digest":"{digest}"}}}}}}"#),
            format!(r#"{{"body":{{"RENEWAL":{{{renewal}}}}}}}"#),
            r#"{"id":1,"body":{"OTHER":{}}}"#.to_owned(),
        ] {
            assert!(serde_json::from_str::<Request>(&bad).is_err(), "{bad}");
        }
    }
}
