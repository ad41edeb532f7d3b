//! `catrust bundle`: what brokers trust, now or then.

use std::collections::HashSet;

use catrust_proto::Timestamp;
use catrust_proto::v1 as proto;
use clap::Args;
use proto::get_trust_bundle_request::At;

use crate::api_client::ApiClient;
use crate::failure::Failure;
use crate::output::{Printer, fields, line, table};
use crate::spelling;

#[derive(Debug, Args)]
pub(crate) struct BundleArguments {
    /// Instance to read.
    #[arg(env = "CATRUST_INSTANCE")]
    instance: String,
    /// The bundle at this revision.
    #[arg(long, value_name = "N", conflicts_with = "as_of", value_parser = spelling::parse_revision)]
    revision: Option<u64>,
    /// The bundle that was current at this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time)]
    as_of: Option<Timestamp>,
    /// Print the certificates that brokers trust, and nothing else (PEM). The signature is
    /// not checked.
    #[arg(long)]
    pem: bool,
}

/// Reads and prints the bundle.
pub(crate) async fn run(command: BundleArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let at = command.revision.map(At::Revision).or_else(|| command.as_of.map(At::AsOf));
    let message = proto::GetTrustBundleRequest { mqtt_instance_id: command.instance, at };
    let mut client = api.trust();
    let reply = api.call(message, async |request| client.get_trust_bundle(request).await).await?;
    let bundle = reply.bundle.as_ref();
    if command.pem {
        return line(&bundle.map(trusted_pem).unwrap_or_default());
    }
    output.reply(&reply, |_| bundle.map(bundle_text).unwrap_or_default())
}

/// The active certificates, but for those whose key an inactivation distrusts: a plain
/// CA file has no other way to say so.
fn trusted_pem(bundle: &proto::TrustBundle) -> String {
    let distrusted: HashSet<&str> = bundle
        .entries
        .iter()
        .filter(|entry| entry.state() == proto::CaCertificateState::Inactive)
        .filter(|entry| entry.inactivation_scope() != proto::InactivationScope::Certificate)
        .map(|entry| entry.spki_sha256.as_str())
        .collect();
    let trusted = bundle.entries.iter().filter(|entry| {
        entry.state() == proto::CaCertificateState::Active && !distrusted.contains(entry.spki_sha256.as_str())
    });
    trusted.map(|entry| format!("{}\n", entry.ca_content.trim_end())).collect()
}

fn bundle_text(bundle: &proto::TrustBundle) -> String {
    let head = fields(&[
        ("instance", bundle.mqtt_instance_id.clone()),
        ("revision", spelling::revision_cell(bundle.revision)),
        ("position", bundle.position.to_string()),
        ("bundle digest", bundle.bundle_digest.clone()),
        ("issued at", spelling::time(bundle.issued_at.as_ref())),
        (
            "signed by key",
            bundle.signature.as_ref().map_or(String::new(), |signature| signature.key_id.clone()),
        ),
    ]);
    let row = |entry: &proto::TrustEntry| {
        vec![
            entry.sn.clone(),
            spelling::state(entry.state()).to_owned(),
            spelling::scope(entry.inactivation_scope()).to_owned(),
            spelling::time(entry.not_after.as_ref()),
            entry.sha256.clone(),
            entry.subject.clone(),
        ]
    };
    let rows: Vec<_> = bundle.entries.iter().map(row).collect();
    format!("{head}\n{}", table(&["SN", "STATE", "SCOPE", "NOT AFTER", "SHA256", "SUBJECT"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pem: &str, key: &str, state: proto::CaCertificateState) -> proto::TrustEntry {
        proto::TrustEntry {
            sn: pem.to_owned(),
            ca_content: format!("{pem}\n"),
            spki_sha256: key.to_owned(),
            state: state.into(),
            ..Default::default()
        }
    }

    #[test]
    fn the_pem_holds_active_certificates_only() {
        let entries = vec![
            entry("one", "k1", proto::CaCertificateState::Active),
            entry("two", "k2", proto::CaCertificateState::Inactive),
            entry("three", "k3", proto::CaCertificateState::Active),
        ];
        let bundle = proto::TrustBundle { entries, ..Default::default() };
        assert_eq!(trusted_pem(&bundle), "one\nthree\n");
    }

    #[test]
    fn an_active_twin_falls_with_its_key_unless_the_certificate_alone_was_retired() {
        let mut retired = entry("old", "k1", proto::CaCertificateState::Inactive);
        retired.inactivation_scope = proto::InactivationScope::Key.into();
        let twin = entry("new", "k1", proto::CaCertificateState::Active);
        let mut bundle = proto::TrustBundle { entries: vec![retired, twin], ..Default::default() };
        assert_eq!(trusted_pem(&bundle), "");
        bundle.entries[0].inactivation_scope = proto::InactivationScope::Certificate.into();
        assert_eq!(trusted_pem(&bundle), "new\n");
    }

    #[test]
    fn the_bundle_shows_its_head_and_its_entries() {
        let bundle = proto::TrustBundle {
            mqtt_instance_id: "fleet-a".to_owned(),
            revision: 3,
            entries: vec![entry("7A0F", "k", proto::CaCertificateState::Active)],
            ..Default::default()
        };
        let text = bundle_text(&bundle);
        assert!(text.starts_with("instance       fleet-a\nrevision       3\n"), "{text}");
        assert!(text.contains("\n7A0F  ACTIVE  -"), "{text}");
    }
}
