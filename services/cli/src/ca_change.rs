//! `catrust ca inactivate | activate | delete`: the switch.

use std::time::Duration;

use catrust_proto::v1 as proto;
use clap::{Args, ValueEnum};

use crate::api_client::{ApiClient, new_request_id};
use crate::ca::certificate_fields;
use crate::failure::Failure;
use crate::fleet::propagation_fields;
use crate::output::Printer;
use crate::spelling;

/// Arguments that every change takes.
#[derive(Debug, Args)]
pub(crate) struct ChangeArguments {
    /// Serial number in any common spelling.
    sn: String,
    /// Instance that the certificate belongs to.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: String,
    /// Why, for the audit trail; 512 characters at most.
    #[arg(long, default_value = "")]
    reason: String,
    /// Wait until the brokers have applied it; it is committed first in any case.
    #[arg(long, value_enum)]
    wait: Option<WaitArgument>,
    /// How long to wait for the brokers, 1ms to 60s; a bare number is seconds.
    #[arg(long, value_name = "TIME", default_value = "10s", requires = "wait",
          value_parser = parse_wait)]
    wait_timeout: Duration,
    /// Idempotency key (UUID), to repeat an earlier command whose answer was lost; a new one
    /// otherwise.
    #[arg(long, value_name = "UUID")]
    request_id: Option<uuid::Uuid>,
}

#[derive(Debug, Args)]
pub(crate) struct InactivateArguments {
    /// Those of every change.
    #[command(flatten)]
    change: ChangeArguments,
    /// How far the inactivation reaches.
    #[arg(long, value_enum, default_value_t = ScopeArgument::Key)]
    scope: ScopeArgument,
}

#[derive(Debug, Args)]
pub(crate) struct ActivateArguments {
    /// Those of every change.
    #[command(flatten)]
    change: ChangeArguments,
    /// Revision at which the CA certificate was looked at, for example 7, or 1:7 in log epoch 1: one that was
    /// changed since stays inactive. Needed where a new log epoch made it inactive again.
    #[arg(long, value_name = "N", value_parser = spelling::parse_revision)]
    expected_revision: Option<u64>,
}

/// Which brokers to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitArgument {
    /// Every broker that is not lost.
    All,
    /// More than half of the brokers.
    Quorum,
}

/// How far an inactivation reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArgument {
    /// The key is distrusted on every path, renewed and cross-signed certificates with it.
    Key,
    /// This certificate alone; an active twin with the same key keeps its devices.
    Certificate,
}

impl ChangeArguments {
    fn wait(&self) -> Option<proto::Wait> {
        let target = match self.wait? {
            WaitArgument::All => proto::wait::Target::AppliedByAll,
            WaitArgument::Quorum => proto::wait::Target::AppliedByQuorum,
        };
        Some(proto::Wait { target: target.into(), timeout: Some(self.wait_timeout.into()) })
    }

    /// Time that the server may take beyond that of a call that does not wait.
    fn extra(&self) -> Duration {
        self.wait.map_or(Duration::ZERO, |_| self.wait_timeout)
    }

    fn request_id(&self) -> String {
        self.request_id.map_or_else(new_request_id, |id| id.to_string())
    }
}

fn parse_wait(text: &str) -> Result<Duration, String> {
    let time = spelling::parse_duration(text)?;
    if (Duration::from_millis(1)..=Duration::from_secs(60)).contains(&time) {
        return Ok(time);
    }
    Err("must be 1ms to 60s".to_owned())
}

pub(crate) async fn inactivate(
    arguments: InactivateArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let change = arguments.change;
    let scope = match arguments.scope {
        ScopeArgument::Key => proto::InactivationScope::Key,
        ScopeArgument::Certificate => proto::InactivationScope::Certificate,
    };
    let (wait, extra, request_id) = (change.wait(), change.extra(), change.request_id());
    let message = proto::InactivateCaCertificateRequest {
        mqtt_instance_id: change.instance,
        sn: change.sn,
        reason: change.reason,
        scope: scope.into(),
        wait,
        request_id,
    };
    let mut client = api.ca_certificates();
    let send = async |request| client.inactivate_ca_certificate(request).await;
    let reply = api.call_and_wait(extra, message, send).await?;
    output.reply(&reply, |reply| {
        let certificate = reply.ca_certificate.as_ref();
        let what = outcome(reply.changed, reply.position, reply.revision);
        changed(certificate, &what, reply.propagation.as_ref())
    })
}

pub(crate) async fn activate(
    arguments: ActivateArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let ActivateArguments { change, expected_revision } = arguments;
    let (wait, extra, request_id) = (change.wait(), change.extra(), change.request_id());
    let message = proto::ActivateCaCertificateRequest {
        mqtt_instance_id: change.instance,
        sn: change.sn,
        reason: change.reason,
        wait,
        request_id,
        expected_revision,
    };
    let mut client = api.ca_certificates();
    let send = async |request| client.activate_ca_certificate(request).await;
    let reply = api.call_and_wait(extra, message, send).await?;
    output.reply(&reply, |reply| {
        let certificate = reply.ca_certificate.as_ref();
        let what = outcome(reply.changed, reply.position, reply.revision);
        changed(certificate, &what, reply.propagation.as_ref())
    })
}

pub(crate) async fn delete(
    change: ChangeArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let (wait, extra, request_id) = (change.wait(), change.extra(), change.request_id());
    let message = proto::DeleteCaCertificateRequest {
        mqtt_instance_id: change.instance,
        sn: change.sn,
        reason: change.reason,
        wait,
        request_id,
    };
    let mut client = api.ca_certificates();
    let send = async |request| client.delete_ca_certificate(request).await;
    let reply = api.call_and_wait(extra, message, send).await?;
    output.reply(&reply, |reply| {
        let revision = spelling::revision(reply.revision);
        let what = format!("{} deleted at position {}, {revision}", reply.sn, reply.position);
        changed(None, &what, reply.propagation.as_ref())
    })
}

fn outcome(changed: bool, position: u64, revision: u64) -> String {
    let revision = spelling::revision(revision);
    match changed {
        true => format!("changed at position {position}, {revision}"),
        false => format!("nothing to change; so since position {position}, {revision}"),
    }
}

fn changed(
    certificate: Option<&proto::CaCertificate>,
    what: &str,
    propagation: Option<&proto::Propagation>,
) -> String {
    let parts = [
        certificate.map(certificate_fields),
        Some(format!("{what}\n")),
        certificate.and_then(twins),
        propagation.map(propagation_fields),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// A person who turns one certificate off wants to know of the others with its key.
fn twins(certificate: &proto::CaCertificate) -> Option<String> {
    if certificate.same_key_sns.is_empty() {
        return None;
    }
    let twins = certificate.same_key_sns.join(", ");
    Some(match certificate.inactivation_scope() {
        proto::InactivationScope::Key => {
            format!("note: same key as {twins}: their devices are refused too, whatever their state\n")
        }
        _ => format!("note: same key as {twins}: look at their state as well\n"),
    })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn change(wait: Option<WaitArgument>) -> ChangeArguments {
        ChangeArguments {
            sn: "7A0F".to_owned(),
            instance: "fleet-a".to_owned(),
            reason: String::new(),
            wait,
            wait_timeout: Duration::from_secs(30),
            request_id: None,
        }
    }

    #[test]
    fn waiting_for_brokers_gives_the_call_more_time() {
        assert_eq!((change(None).wait(), change(None).extra()), (None, Duration::ZERO));
        let change = change(Some(WaitArgument::Quorum));
        assert_eq!(change.extra(), Duration::from_secs(30));
        let wait = change.wait().unwrap();
        assert_eq!(wait.target(), proto::wait::Target::AppliedByQuorum);
        assert_eq!(wait.timeout.unwrap().seconds, 30);
    }

    #[test]
    fn the_wait_is_bounded_as_the_contract_has_it() {
        assert_eq!(parse_wait("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(parse_wait("60"), Ok(Duration::from_secs(60)));
        for wrong in ["0", "61s", "2m", "soon"] {
            assert!(parse_wait(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_command_has_a_request_id_of_its_own_unless_one_is_given() {
        let mut change = change(None);
        assert_ne!(change.request_id(), change.request_id());
        let given = "b1946ac9-2f6b-4c8e-9d3f-0a1b2c3d4e5f";
        change.request_id = Some(given.parse().unwrap());
        assert_eq!(change.request_id(), given);
    }

    #[test]
    fn an_activation_takes_a_revision_as_people_are_told_it() {
        let command = ActivateArguments::augment_args(clap::Command::new("activate"));
        let words = ["activate", "7A0F", "--instance", "fleet-a", "--expected-revision", "1:7"];
        let given = ActivateArguments::from_arg_matches(&command.get_matches_from(words)).unwrap();
        assert_eq!(given.expected_revision, Some((1 << 32) | 7));
    }

    #[test]
    fn a_change_names_the_twins_of_the_key() {
        let certificate = proto::CaCertificate {
            sn: "7A0F".to_owned(),
            inactivation_scope: proto::InactivationScope::Key.into(),
            same_key_sns: vec!["01".to_owned(), "02".to_owned()],
            ..Default::default()
        };
        let text = changed(Some(&certificate), &outcome(true, 9, 4), None);
        assert!(text.contains("\nchanged at position 9, revision 4\n"), "{text}");
        assert!(text.contains("note: same key as 01, 02: their devices are refused too"), "{text}");
    }

    #[test]
    fn an_unchanged_state_says_since_when() {
        assert_eq!(outcome(false, 9, 4), "nothing to change; so since position 9, revision 4");
    }
}
