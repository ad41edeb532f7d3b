//! `catrust fleet`: which broker has applied what.

use catrust_proto::v1 as proto;
use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::{Output, fields, table};
use crate::session::Session;
use crate::spelling;

/// What to ask about the fleet.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// List the brokers of an instance.
    Status(Status),
    /// Show how far a revision has got.
    Propagation(Propagation),
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Instance to look in.
    #[arg(env = "CATRUST_INSTANCE")]
    instance: String,
}

/// Arguments of `propagation`.
#[derive(Debug, Args)]
pub struct Propagation {
    /// Instance that the revision belongs to.
    #[arg(env = "CATRUST_INSTANCE")]
    instance: String,
    /// Revision; the current one otherwise.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    revision: u64,
}

/// Carries the command out.
pub async fn run(command: FleetCommand, session: &Session, output: &Output) -> Result<(), Failure> {
    match command {
        FleetCommand::Status(arguments) => status(arguments, session, output).await,
        FleetCommand::Propagation(arguments) => propagation(arguments, session, output).await,
    }
}

async fn status(arguments: Status, session: &Session, output: &Output) -> Result<(), Failure> {
    let message = proto::ListBrokersRequest { mqtt_instance_id: arguments.instance };
    let mut client = session.fleet();
    let reply = session.call(message, async |request| client.list_brokers(request).await).await?;
    output.reply(&reply, |reply| broker_table(&reply.brokers))
}

async fn propagation(arguments: Propagation, session: &Session, output: &Output) -> Result<(), Failure> {
    let message =
        proto::GetPropagationRequest { mqtt_instance_id: arguments.instance, revision: arguments.revision };
    let mut client = session.fleet();
    let reply = session.call(message, async |request| client.get_propagation(request).await).await?;
    output.reply(&reply, |reply| reply.propagation.as_ref().map(propagation_fields).unwrap_or_default())
}

fn broker_table(brokers: &[proto::Broker]) -> String {
    let row = |broker: &proto::Broker| {
        vec![
            broker.broker_id.clone(),
            broker.applied_revision.to_string(),
            if broker.digest_agrees { "agrees" } else { "DIFFERS" }.to_owned(),
            if broker.lost { "LOST" } else { "in contact" }.to_owned(),
            spelling::time(broker.last_contact_at.as_ref()),
            broker.sessions_open.to_string(),
            broker.enforcement().as_str_name().trim_start_matches("ENFORCEMENT_").to_owned(),
            broker.refusal.clone(),
        ]
    };
    let header =
        ["BROKER", "REVISION", "DIGEST", "CONTACT", "LAST CONTACT", "SESSIONS", "ENFORCES AT", "REFUSAL"];
    table(&header, &brokers.iter().map(row).collect::<Vec<_>>())
}

/// Counts, and the names of those that are not done.
pub fn propagation_fields(propagation: &proto::Propagation) -> String {
    let named = |count: u32, names: &[String]| match names {
        [] => count.to_string(),
        names => format!("{count} ({})", names.join(", ")),
    };
    fields(&[
        ("revision", propagation.revision.to_string()),
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
        assert!(text.contains("DIFFERS  LOST"), "{text}");
    }
}
