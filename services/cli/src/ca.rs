//! `catrust ca`: the CA certificates of an instance. Those commands that change a state
//! are in [`crate::ca_change`].

use std::path::{Path, PathBuf};

use catrust_proto::v1 as proto;
use clap::{Args, Subcommand, ValueEnum};

use crate::api_client::{ApiClient, new_request_id};
use crate::ca_change::{self, ActivateArguments, ChangeArguments, InactivateArguments};
use crate::failure::Failure;
use crate::output::{Printer, fields, line, table};
use crate::spelling;

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Get a register code, and the commands that sign it with the CA's key.
    Code(CodeArguments),
    /// Register a CA certificate with proof that you hold its key.
    Register(RegisterCaArguments),
    /// List CA certificates in the order of registration.
    List(ListCasArguments),
    /// Show one CA certificate.
    Show(ShowCaArguments),
    /// Turn trust off: devices of this CA are refused and cut off.
    Inactivate(InactivateArguments),
    /// Turn trust on again.
    Activate(ActivateArguments),
    /// Forget a CA certificate; its events stay in the log.
    Delete(ChangeArguments),
    /// List what happened to one CA certificate, or to all of an instance.
    History(HistoryArguments),
}

#[derive(Debug, Args)]
pub(crate) struct CodeArguments {
    /// Instance that the CA certificate will belong to.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: String,
    /// The CA certificate, as the printed commands shall name it.
    #[arg(long, value_name = "FILE", default_value = "ca.pem")]
    ca_file: String,
    /// The CA's private key, as the printed commands shall name it. It is not read.
    #[arg(long, value_name = "FILE", default_value = "ca.key")]
    ca_key: String,
    /// Print the code alone, for scripts.
    #[arg(long)]
    bare: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterCaArguments {
    /// Instance that the CA certificate will belong to.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: String,
    /// Name for people, 1 to 64 characters.
    #[arg(long)]
    name: String,
    /// The CA certificate (PEM).
    #[arg(long, value_name = "FILE")]
    ca_file: PathBuf,
    /// The certificate with the register code as its common name, signed with the CA's key
    /// (PEM). `catrust ca code` prints how to make it.
    #[arg(long, value_name = "FILE")]
    verification_file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ListCasArguments {
    /// Instance to look in.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: String,
    /// Only those in this state.
    #[arg(long, value_enum)]
    state: Option<StateArgument>,
    /// Stop after this many; all of them otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// States as the command line spells them.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StateArgument {
    /// Devices may connect.
    Active,
    /// Devices are refused.
    Inactive,
}

impl From<StateArgument> for proto::CaCertificateState {
    fn from(state: StateArgument) -> Self {
        match state {
            StateArgument::Active => Self::Active,
            StateArgument::Inactive => Self::Inactive,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ShowCaArguments {
    /// Serial number in any common spelling.
    sn: String,
    /// Instance to look in.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: String,
    /// Print the certificate alone (PEM).
    #[arg(long)]
    pem: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArguments {
    /// Serial number in any common spelling; every CA certificate otherwise.
    sn: Option<String>,
    /// Instance to look in.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: String,
    /// Stop after this many; all of them otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

pub(crate) async fn run(command: CaCommand, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    match command {
        CaCommand::Code(arguments) => code(arguments, api, output).await,
        CaCommand::Register(arguments) => register(arguments, api, output).await,
        CaCommand::List(arguments) => list(arguments, api, output).await,
        CaCommand::Show(arguments) => show(arguments, api, output).await,
        CaCommand::Inactivate(arguments) => ca_change::inactivate(arguments, api, output).await,
        CaCommand::Activate(arguments) => ca_change::activate(arguments, api, output).await,
        CaCommand::Delete(arguments) => ca_change::delete(arguments, api, output).await,
        CaCommand::History(arguments) => history(arguments, api, output).await,
    }
}

async fn code(arguments: CodeArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let message =
        proto::GetRegisterCodeRequest { mqtt_instance_id: arguments.instance, request_id: new_request_id() };
    let mut client = api.ca_certificates();
    let reply = api.call(message, async |request| client.get_register_code(request).await).await?;
    if arguments.bare {
        return line(&reply.register_code);
    }
    output
        .reply(&reply, |reply| signing_commands(&reply.register_code, &arguments.ca_file, &arguments.ca_key))
}

/// The two commands that make the verification certificate, ready to paste.
fn signing_commands(code: &str, ca_file: &str, ca_key: &str) -> String {
    let (ca_file, ca_key) = (quoted(ca_file), quoted(ca_key));
    format!(
        "\
register code  {code}

Sign it with the CA's key, which stays with you:

  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\
    -keyout verification.key -subj {subject} -out verification.csr
  openssl x509 -req -in verification.csr -CA {ca_file} -CAkey {ca_key} -set_serial 1 -days 1 \\
    -out verification.pem

then register with --verification-file verification.pem. The code is spent by that.
",
        subject = quoted(&format!("/CN={code}"))
    )
}

/// The text as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

async fn register(arguments: RegisterCaArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let message = proto::RegisterCaCertificateRequest {
        mqtt_instance_id: arguments.instance,
        ca_name: arguments.name,
        ca_content: read_pem(&arguments.ca_file)?,
        verification_content: read_pem(&arguments.verification_file)?,
        request_id: new_request_id(),
    };
    let mut client = api.ca_certificates();
    let reply = api.call(message, async |request| client.register_ca_certificate(request).await).await?;
    output.reply(&reply, |reply| {
        let mut text = reply.ca_certificate.as_ref().map(certificate_fields).unwrap_or_default();
        let revision = spelling::revision(reply.revision);
        text.push_str(&format!("\nregistered at position {}, {revision}", reply.position));
        text
    })
}

fn read_pem(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))
}

async fn show(arguments: ShowCaArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let message = proto::GetCaCertificateRequest { mqtt_instance_id: arguments.instance, sn: arguments.sn };
    let mut client = api.ca_certificates();
    let reply = api.call(message, async |request| client.get_ca_certificate(request).await).await?;
    if arguments.pem {
        return line(reply.ca_certificate.as_ref().map_or("", |found| &found.ca_content));
    }
    output.reply(&reply, |reply| reply.ca_certificate.as_ref().map(certificate_fields).unwrap_or_default())
}

async fn list(arguments: ListCasArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let limit = arguments.limit.map_or(usize::MAX, |limit| limit as usize);
    let state = arguments.state.map_or(proto::CaCertificateState::Unspecified, Into::into);
    let mut all = proto::ListCaCertificatesResponse::default();
    let mut client = api.ca_certificates();
    loop {
        let message = proto::ListCaCertificatesRequest {
            mqtt_instance_id: arguments.instance.clone(),
            page_size: 100,
            page_token: all.next_page_token,
            state: state.into(),
        };
        let page = api.call(message, async |request| client.list_ca_certificates(request).await).await?;
        all.ca_certificates.extend(page.ca_certificates);
        (all.request_id, all.total_size) = (page.request_id, page.total_size);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.ca_certificates.len() >= limit {
            break;
        }
    }
    all.ca_certificates.truncate(limit);
    // The token continues after whole pages, which need not be where the limit cut.
    all.next_page_token.clear();
    output.reply(&all, |all| certificate_table(&all.ca_certificates))
}

async fn history(arguments: HistoryArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let limit = arguments.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut all = proto::ListCaCertificateEventsResponse::default();
    let mut client = api.ca_certificates();
    loop {
        let message = proto::ListCaCertificateEventsRequest {
            mqtt_instance_id: arguments.instance.clone(),
            sn: arguments.sn.clone().unwrap_or_default(),
            page_size: 100,
            page_token: all.next_page_token,
            ..Default::default()
        };
        let page =
            api.call(message, async |request| client.list_ca_certificate_events(request).await).await?;
        all.events.extend(page.events);
        all.request_id = page.request_id;
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.events.len() >= limit {
            break;
        }
    }
    all.events.truncate(limit);
    all.next_page_token.clear();
    output.reply(&all, |all| event_table(&all.events))
}

/// Everything about one CA certificate but its PEM.
pub(crate) fn certificate_fields(certificate: &proto::CaCertificate) -> String {
    fields(&[
        ("sn", certificate.sn.clone()),
        ("name", certificate.ca_name.clone()),
        ("instance", certificate.mqtt_instance_id.clone()),
        ("state", spelling::state(certificate.state()).to_owned()),
        ("inactivation scope", spelling::scope(certificate.inactivation_scope()).to_owned()),
        ("changed at", spelling::time(certificate.state_changed_at.as_ref())),
        ("actor", certificate.actor.clone()),
        ("reason", certificate.state_reason.clone()),
        ("revision", spelling::revision_cell(certificate.revision)),
        ("same key as", certificate.same_key_sns.join(", ")),
        ("subject", certificate.subject.clone()),
        ("issuer", certificate.issuer.clone()),
        ("not before", spelling::time(certificate.not_before.as_ref())),
        ("not after", spelling::time(certificate.not_after.as_ref())),
        ("sha256", certificate.sha256.clone()),
        ("spki sha256", certificate.spki_sha256.clone()),
        ("subject key id", certificate.subject_key_id.clone()),
        ("registered at", spelling::time(certificate.registered_at.as_ref())),
        ("register code", certificate.register_code.clone()),
    ])
}

fn certificate_table(certificates: &[proto::CaCertificate]) -> String {
    let row = |certificate: &proto::CaCertificate| {
        vec![
            certificate.sn.clone(),
            certificate.ca_name.clone(),
            spelling::state(certificate.state()).to_owned(),
            spelling::revision_cell(certificate.revision),
            spelling::time(certificate.state_changed_at.as_ref()),
            certificate.actor.clone(),
            spelling::time(certificate.not_after.as_ref()),
            certificate.subject.clone(),
        ]
    };
    let header = ["SN", "NAME", "STATE", "REVISION", "CHANGED AT", "ACTOR", "NOT AFTER", "SUBJECT"];
    table(&header, &certificates.iter().map(row).collect::<Vec<_>>())
}

fn event_table(events: &[proto::CaCertificateEvent]) -> String {
    let row = |event: &proto::CaCertificateEvent| {
        vec![
            event.position.to_string(),
            spelling::revision_cell(event.revision),
            spelling::time(event.occurred_at.as_ref()),
            event.event_type.clone(),
            event.sn.clone(),
            event.actor.clone(),
            event.request_id.clone(),
            event.reason.clone(),
        ]
    };
    let header = ["POSITION", "REVISION", "OCCURRED AT", "EVENT TYPE", "SN", "ACTOR", "REQUEST ID", "REASON"];
    table(&header, &events.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_listed_with_state_and_last_change() {
        let certificate = proto::CaCertificate {
            sn: "7A0F".to_owned(),
            ca_name: "acme".to_owned(),
            state: proto::CaCertificateState::Inactive.into(),
            subject: "CN=Acme Root".to_owned(),
            not_after: Some(catrust_proto::Timestamp { seconds: 1_772_366_400, nanos: 0 }),
            revision: 2,
            ..Default::default()
        };
        let expected = "\
SN    NAME  STATE     REVISION  CHANGED AT  ACTOR  NOT AFTER             SUBJECT
7A0F  acme  INACTIVE  2         -           -      2026-03-01T12:00:00Z  CN=Acme Root
";
        assert_eq!(certificate_table(&[certificate]), expected);
    }

    #[test]
    fn events_are_listed_with_who_and_why() {
        let event = proto::CaCertificateEvent {
            position: 12,
            revision: 2,
            event_type: "CaCertificateInactivated".to_owned(),
            actor: "ops-alice".to_owned(),
            reason: "key leaked".to_owned(),
            sn: "7A0F".to_owned(),
            ..Default::default()
        };
        let text = event_table(&[event]);
        assert!(
            text.contains("12        2         -            CaCertificateInactivated  7A0F  ops-alice"),
            "{text}"
        );
        assert!(text.trim_end().ends_with("key leaked"), "{text}");
    }

    #[test]
    fn the_signing_commands_survive_spaces_and_quotes_in_names() {
        let text = signing_commands("abc123", "my ca.pem", "it's.key");
        assert!(text.contains("-subj /CN=abc123 "), "{text}");
        assert!(text.contains(r"-CA 'my ca.pem' -CAkey 'it'\''s.key'"), "{text}");
    }
}
