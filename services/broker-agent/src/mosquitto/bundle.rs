//! The agent's trust in the plugin's words.

use std::time::Duration;

use catrust_mosquitto_control::{Bundle, Entry, Renewal};
use catrust_trust_feed::agent::{AgentTrust, NotApplied};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The whole of it.
///
/// # Errors
/// A certificate of the bundle is not PEM, which only a defect of ours could bring about.
pub fn bundle(trust: &AgentTrust, lease: Duration) -> Result<Bundle, NotApplied> {
    let mut entries = Vec::with_capacity(trust.bundle.entries.len());
    for entry in &trust.bundle.entries {
        let der = CertificateDer::from_pem_slice(entry.facts.ca_content.as_bytes()).map_err(|_| {
            NotApplied { reason: format!("the CA certificate {} is not PEM", entry.facts.sn) }
        })?;
        entries.push(Entry::new(&der, entry.state));
    }
    Ok(Bundle {
        instance_id: trust.bundle.instance_id.clone(),
        revision: trust.bundle.revision,
        digest: trust.bundle.digest,
        // The agent's bundles are signed: where one is empty, it was meant.
        explicit_empty: entries.is_empty(),
        entries,
        admit_for_ms: admit_for_ms(trust, lease),
        with_will: trust.with_will,
        takes_back: trust.takes_back,
    })
}

/// That it is still the current one.
pub fn renewal(trust: &AgentTrust, lease: Duration) -> Renewal {
    Renewal {
        revision: trust.bundle.revision,
        digest: trust.bundle.digest,
        admit_for_ms: admit_for_ms(trust, lease),
    }
}

fn admit_for_ms(trust: &AgentTrust, lease: Duration) -> u64 {
    if trust.freshness.admits() { u64::try_from(lease.as_millis()).unwrap_or(u64::MAX) } else { 0 }
}
