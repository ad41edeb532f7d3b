//! `catrust audit list`.

use catrust_proto::Timestamp;
use catrust_proto::v1 as proto;
use clap::Args;

use crate::api_client::ApiClient;
use crate::ca::StateArgument;
use crate::failure::Failure;
use crate::output::{Printer, table};
use crate::spelling;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("scope").required(true).multiple(true).args(["instance", "account"]))]
pub(crate) struct ListEventsArguments {
    /// Instance to look in.
    #[arg(long, env = "CATRUST_INSTANCE")]
    instance: Option<String>,
    /// Account to look in: all of its instances. Goes before --instance.
    #[arg(long, conflicts_with = "sn")]
    account: Option<String>,
    /// Only this serial number, in any common spelling.
    #[arg(long)]
    sn: Option<String>,
    /// Only what this principal asked for.
    #[arg(long)]
    actor: Option<String>,
    /// Only events of this type (registered, inactivated, activated, deleted); may be given
    /// more than once.
    #[arg(long = "event-type", value_name = "TYPE", value_parser = event_type)]
    event_types: Vec<String>,
    /// Only events that left the certificate in this state.
    #[arg(long, value_enum)]
    state: Option<StateArgument>,
    /// Only what happened at this time or later (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time)]
    since: Option<Timestamp>,
    /// Only what happened before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time)]
    until: Option<Timestamp>,
    /// Stop after this many; all of them otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// The contract's name of a type: `inactivated` is `CaCertificateInactivated`. Which types
/// there are is the server's to say, so that a newer server's are not refused here.
fn event_type(word: &str) -> Result<String, String> {
    let rest = word.strip_prefix("CaCertificate").unwrap_or(word);
    let mut letters = rest.chars();
    match letters.next() {
        Some(first) if rest.chars().all(|letter| letter.is_ascii_alphabetic()) => {
            Ok(format!("CaCertificate{}{}", first.to_ascii_uppercase(), letters.as_str()))
        }
        _ => Err("a type is one word, for example inactivated".to_owned()),
    }
}

pub(super) async fn run(
    arguments: ListEventsArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let limit = arguments.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut request = request(arguments);
    let mut all = proto::ListCaCertificateEventsResponse::default();
    let mut client = api.ca_certificates();
    loop {
        let message = request.clone();
        let page =
            api.call(message, async |request| client.list_ca_certificate_events(request).await).await?;
        all.events.extend(page.events);
        all.request_id = page.request_id;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || all.events.len() >= limit {
            break;
        }
    }
    all.events.truncate(limit);
    output.reply(&all, |all| event_table(&all.events))
}

fn request(arguments: ListEventsArguments) -> proto::ListCaCertificateEventsRequest {
    let state = arguments.state.map_or(proto::CaCertificateState::Unspecified, Into::into);
    // The environment names an instance for every command; an account goes before it.
    let instance = arguments.instance.filter(|_| arguments.account.is_none());
    proto::ListCaCertificateEventsRequest {
        mqtt_instance_id: instance.unwrap_or_default(),
        sn: arguments.sn.unwrap_or_default(),
        page_size: 100,
        page_token: String::new(),
        account_id: arguments.account.unwrap_or_default(),
        actor: arguments.actor.unwrap_or_default(),
        event_types: arguments.event_types,
        occurred_from: arguments.since,
        occurred_until: arguments.until,
        state: state.into(),
    }
}

fn event_table(events: &[proto::CaCertificateEvent]) -> String {
    let row = |event: &proto::CaCertificateEvent| {
        vec![
            event.position.to_string(),
            spelling::time(event.occurred_at.as_ref()),
            event.mqtt_instance_id.clone(),
            event.sn.clone(),
            event.event_type.trim_start_matches("CaCertificate").to_owned(),
            event.actor.clone(),
            event.policy_version.clone(),
            event.source_address.clone(),
            event.request_id.clone(),
            event.reason.clone(),
        ]
    };
    let header = [
        "POSITION",
        "OCCURRED AT",
        "INSTANCE",
        "SN",
        "EVENT TYPE",
        "ACTOR",
        "POLICY",
        "FROM",
        "REQUEST ID",
        "REASON",
    ];
    table(&header, &events.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        list: ListEventsArguments,
    }

    fn parse(words: &[&str]) -> Result<ListEventsArguments, clap::Error> {
        Line::try_parse_from([&["list"], words].concat()).map(|line| line.list)
    }

    #[test]
    fn filters_reach_the_request() {
        let words = [
            "--instance",
            "fleet",
            "--event-type",
            "inactivated",
            "--event-type",
            "deleted",
            "--actor",
            "ops",
            "--since",
            "2026-03-01T12:00:00Z",
            "--state",
            "inactive",
        ];
        let request = request(parse(&words).unwrap());
        assert_eq!(request.mqtt_instance_id, "fleet");
        assert_eq!(request.event_types, ["CaCertificateInactivated", "CaCertificateDeleted"]);
        assert_eq!((request.actor.as_str(), request.occurred_until), ("ops", None));
        assert_eq!(request.occurred_from.map(|time| time.seconds), Some(1_772_366_400));
        assert_eq!(request.state(), proto::CaCertificateState::Inactive);
    }

    #[test]
    fn an_instance_or_an_account_is_needed_and_a_serial_number_needs_an_instance() {
        assert!(parse(&["--account", "acme", "--sn", "01"]).is_err());
        assert!(parse(&["--instance", "fleet", "--sn", "01"]).is_ok());
        assert_eq!(request(parse(&["--account", "acme"]).unwrap()).account_id, "acme");
    }

    #[test]
    fn each_event_says_who_by_which_policy_from_where_and_why() {
        let event = proto::CaCertificateEvent {
            position: 12,
            mqtt_instance_id: "fleet".to_owned(),
            sn: "7A0F".to_owned(),
            event_type: "CaCertificateInactivated".to_owned(),
            actor: "ops-alice".to_owned(),
            policy_version: "v7".to_owned(),
            source_address: "192.0.2.7".to_owned(),
            request_id: "r-1".to_owned(),
            reason: "key leaked".to_owned(),
            ..Default::default()
        };
        let text = event_table(&[event]);
        let line = text.lines().nth(1).unwrap_or_default();
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(
            cells,
            ["12", "-", "fleet", "7A0F", "Inactivated", "ops-alice", "v7", "192.0.2.7", "r-1", "key leaked"]
        );
    }
}
