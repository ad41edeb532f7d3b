//! `catrust fleet`: which broker has applied what.

use catrust_proto::v1 as proto;
use clap::{Args, Subcommand};

use crate::api_client::ApiClient;
use crate::failure::Failure;
use crate::output::{Printer, fields, table};
use crate::propagation_watch;
use crate::spelling;

#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    /// List the brokers of an instance.
    Status(StatusArguments),
    /// Show how far a revision has got.
    Propagation(PropagationArguments),
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    /// Instance to look in.
    #[arg(env = "CATRUST_INSTANCE")]
    instance: String,
}

#[derive(Debug, Args)]
pub(crate) struct PropagationArguments {
    /// Instance that the revision belongs to.
    #[arg(env = "CATRUST_INSTANCE")]
    instance: String,
    /// Revision; the current one otherwise.
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        hide_default_value = true,
        value_parser = spelling::parse_revision
    )]
    revision: u64,
    /// Show every change, a line each, until no broker in contact is pending.
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(command: FleetCommand, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    match command {
        FleetCommand::Status(arguments) => status(arguments, api, output).await,
        FleetCommand::Propagation(arguments) if arguments.watch => {
            propagation_watch::run(arguments.instance, arguments.revision, api, output).await
        }
        FleetCommand::Propagation(arguments) => propagation(arguments, api, output).await,
    }
}

async fn status(arguments: StatusArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let message = proto::ListBrokersRequest { mqtt_instance_id: arguments.instance };
    let mut client = api.fleet();
    let reply = api.call(message, async |request| client.list_brokers(request).await).await?;
    output.reply(&reply, |reply| broker_table(&reply.brokers))
}

async fn propagation(
    arguments: PropagationArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let message =
        proto::GetPropagationRequest { mqtt_instance_id: arguments.instance, revision: arguments.revision };
    let mut client = api.fleet();
    let reply = api.call(message, async |request| client.get_propagation(request).await).await?;
    output.reply(&reply, |reply| reply.propagation.as_ref().map(propagation_fields).unwrap_or_default())
}

fn broker_table(brokers: &[proto::Broker]) -> String {
    let row = |broker: &proto::Broker| {
        vec![
            broker.broker_id.clone(),
            spelling::revision_cell(broker.applied_revision),
            if broker.digest_agrees { "agrees" } else { "DIFFERS" }.to_owned(),
            broker.enforcement().as_str_name().trim_start_matches("ENFORCEMENT_").to_owned(),
            broker.sessions_open.to_string(),
            spelling::time(broker.last_contact_at.as_ref()),
            state(broker).to_owned(),
            last_refusal(broker),
        ]
    };
    let header =
        ["BROKER", "REVISION", "DIGEST", "ENFORCES AT", "SESSIONS", "LAST CONTACT", "STATE", "LAST REFUSAL"];
    table(&header, &brokers.iter().map(row).collect::<Vec<_>>())
}

/// Loud where somebody should look.
const fn state(broker: &proto::Broker) -> &'static str {
    match (broker.lost, broker.refused) {
        (true, _) => "LOST",
        (false, true) => "REFUSED",
        (false, false) => "in contact",
    }
}

/// The last refusal stays after a success, so that it needs its time.
fn last_refusal(broker: &proto::Broker) -> String {
    if broker.refusal.is_empty() {
        return String::new();
    }
    let time = spelling::time(broker.refused_at.as_ref());
    format!("{time} {}: {}", spelling::revision(broker.refused_revision), broker.refusal)
}

/// Counts, and the names of those that are not done.
pub(crate) fn propagation_fields(propagation: &proto::Propagation) -> String {
    let named = |count: u32, names: &[String]| match names {
        [] => count.to_string(),
        names => format!("{count} ({})", names.join(", ")),
    };
    fields(&[
        ("revision", spelling::revision_cell(propagation.revision)),
        ("applied", propagation.applied.to_string()),
        ("pending", named(propagation.pending, &propagation.pending_broker_ids)),
        ("refused", named(propagation.refused, &propagation.refused_broker_ids)),
        ("lost", named(propagation.lost, &propagation.lost_broker_ids)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_names_those_that_are_not_done() {
        let propagation = proto::Propagation {
            revision: 4,
            applied: 2,
            pending: 1,
            pending_broker_ids: vec!["b3".to_owned()],
            ..Default::default()
        };
        let text = propagation_fields(&propagation);
        assert_eq!(text, "revision  4\napplied   2\npending   1 (b3)\nrefused   0\nlost      0\n");
    }

    #[test]
    fn a_broker_that_differs_or_is_lost_catches_the_eye() {
        let broker = proto::Broker { broker_id: "b1".to_owned(), lost: true, ..Default::default() };
        let text = broker_table(&[broker]);
        let row = text.lines().nth(1).unwrap();
        assert!(row.contains("DIFFERS") && row.contains("LOST"), "{text}");
    }

    #[test]
    fn a_refusal_is_shown_with_its_time_and_stands_until_it_is_made_good() {
        let refusal = proto::Broker {
            refusal: "disk full".to_owned(),
            refused_revision: 8,
            refused_at: Some(catrust_proto::Timestamp { seconds: 1_772_366_400, nanos: 0 }),
            refused: true,
            ..Default::default()
        };
        assert_eq!(state(&refusal), "REFUSED");
        assert_eq!(last_refusal(&refusal), "2026-03-01T12:00:00Z revision 8: disk full");
        let settled = proto::Broker { refused: false, ..refusal };
        assert_eq!(state(&settled), "in contact");
        assert!(last_refusal(&settled).ends_with("disk full"), "it stays as history");
    }
}
