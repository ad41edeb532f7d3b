//! `catrust watch`: the feed of an instance, a line a message.

use catrust_proto::v1 as proto;
use clap::Args;
use proto::trust_message::Message;
use tonic::Status;

use crate::api_client::ApiClient;
use crate::failure::Failure;
use crate::output::Printer;
use crate::spelling;
use crate::stream::{self, StreamFailure};

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Instance to follow.
    #[arg(env = "CATRUST_INSTANCE")]
    instance: String,
    /// Changes after this revision; the whole bundle first otherwise.
    #[arg(long, value_name = "N", value_parser = spelling::parse_revision)]
    after_revision: Option<u64>,
    /// End when this revision is there.
    #[arg(long, value_name = "N", value_parser = spelling::parse_revision)]
    until_revision: Option<u64>,
    /// Name of a broker to watch as.
    #[arg(long, value_name = "ID", default_value = "")]
    broker_id: String,
    /// Show the heads too, one every 2 s and after each start, and key sets.
    #[arg(long)]
    heads: bool,
}

/// Follows the feed until it is told to stop, and over lost connections.
pub(crate) async fn run(command: WatchArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let mut watch = TrustWatch { seen: command.after_revision, command };
    stream::follow(api, async |heard| watch.read(heard, api, output).await).await
}

/// Where the reader is.
struct TrustWatch {
    command: WatchArguments,
    /// Last revision that was shown.
    seen: Option<u64>,
}

impl TrustWatch {
    /// Opens the feed and shows it until it ends or the wanted revision is there.
    async fn read(
        &mut self,
        heard: &mut bool,
        api: &ApiClient,
        output: &Printer,
    ) -> Result<(), StreamFailure> {
        let request = proto::WatchTrustRequest {
            mqtt_instance_id: self.command.instance.clone(),
            broker_id: self.command.broker_id.clone(),
            after_revision: self.seen,
            ..Default::default()
        };
        let mut feed = api.trust().watch_trust(request).await?.into_inner();
        while let Some(message) = feed.message().await? {
            *heard = true;
            if self.show(&message, output)? {
                return Ok(());
            }
        }
        Err(Status::unavailable("the feed ended").into())
    }

    /// Prints the message; true when the wanted revision is there.
    fn show(&mut self, message: &proto::TrustMessage, output: &Printer) -> Result<bool, Failure> {
        let head = matches!(message.message, Some(Message::Head(_) | Message::KeySet(_)));
        if !head || self.command.heads {
            output.message(message, text)?;
        }
        let revision = match &message.message {
            Some(Message::Bundle(bundle)) => bundle.revision,
            Some(Message::Change(change)) => change.revision,
            Some(Message::Head(_) | Message::KeySet(_)) | None => return Ok(false),
        };
        self.seen = Some(revision);
        Ok(self.command.until_revision.is_some_and(|wanted| revision >= wanted))
    }
}

/// One line; none for a kind of message that this version does not know.
fn text(message: &proto::TrustMessage) -> Option<String> {
    let (time, revision, what) = match message.message.as_ref()? {
        Message::KeySet(set) => {
            let (issued, until) =
                (spelling::time(set.issued_at.as_ref()), spelling::time(set.expires_at.as_ref()));
            let keys = set.keys.len();
            return Some(format!("{issued}  key set {} of {keys} keys, until {until}", set.version));
        }
        Message::Bundle(bundle) => (&bundle.issued_at, bundle.revision, bundle_summary(bundle)),
        Message::Change(change) => (&change.occurred_at, change.revision, change_summary(change)),
        Message::Head(head) => {
            let until = spelling::time(head.valid_until.as_ref());
            (&head.issued_at, head.revision, format!("head, current until {until}"))
        }
    };
    let line = format!("{}  {}  {what}", spelling::time(time.as_ref()), spelling::revision(revision));
    Some(spelling::printable(&line, false))
}

fn bundle_summary(bundle: &proto::TrustBundle) -> String {
    let inactive = |entry: &&proto::TrustEntry| entry.state() == proto::CaCertificateState::Inactive;
    let count = bundle.entries.iter().filter(inactive).count();
    format!("bundle of {} CA certificates, {count} of them inactive", bundle.entries.len())
}

fn change_summary(change: &proto::TrustChange) -> String {
    let entry = change.entry.clone().unwrap_or_default();
    let state = match (change.deleted, spelling::scope(entry.inactivation_scope())) {
        (true, _) => "DELETED".to_owned(),
        (false, "") => spelling::state(entry.state()).to_owned(),
        (false, scope) => format!("{} ({scope})", spelling::state(entry.state())),
    };
    let reason = if change.reason.is_empty() { String::new() } else { format!("  \"{}\"", change.reason) };
    let position = change.position;
    format!(
        "{} at position {position}: {} is {state}, {}{reason}",
        change.event_type, entry.sn, entry.subject
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> proto::TrustMessage {
        let change = proto::TrustChange {
            position: 12,
            event_type: "CaCertificateInactivated".to_owned(),
            revision: 4,
            entry: Some(proto::TrustEntry {
                sn: "7A0F".to_owned(),
                subject: "CN=Acme".to_owned(),
                state: proto::CaCertificateState::Inactive.into(),
                inactivation_scope: proto::InactivationScope::Key.into(),
                ..Default::default()
            }),
            reason: "key leaked".to_owned(),
            occurred_at: Some(catrust_proto::Timestamp { seconds: 1_772_366_400, nanos: 0 }),
            ..Default::default()
        };
        proto::TrustMessage { message: Some(Message::Change(change)), request_id: String::new() }
    }

    fn watch(until_revision: Option<u64>) -> TrustWatch {
        let command = WatchArguments {
            instance: "fleet-a".to_owned(),
            after_revision: None,
            until_revision,
            broker_id: String::new(),
            heads: false,
        };
        TrustWatch { command, seen: None }
    }

    #[test]
    fn a_change_is_one_line() {
        let expected = "2026-03-01T12:00:00Z  revision 4  CaCertificateInactivated at position 12: \
                        7A0F is INACTIVE (KEY), CN=Acme  \"key leaked\"";
        assert_eq!(text(&change()).unwrap(), expected);
    }

    #[test]
    fn the_revision_that_was_shown_last_is_where_a_new_feed_starts() {
        let output = Printer::new(crate::arguments::OutputFormat::Table);
        let mut watch = watch(Some(5));
        assert!(!watch.show(&change(), &output).unwrap());
        assert_eq!(watch.seen, Some(4));
        watch.command.until_revision = Some(4);
        assert!(watch.show(&change(), &output).unwrap());
    }

    #[test]
    fn a_head_moves_nothing() {
        let head = proto::Head { revision: 9, ..Default::default() };
        let message = proto::TrustMessage { message: Some(Message::Head(head)), request_id: String::new() };
        let mut watch = watch(Some(1));
        let output = Printer::new(crate::arguments::OutputFormat::Table);
        assert!(!watch.show(&message, &output).unwrap());
        assert_eq!(watch.seen, None);
    }

    #[test]
    fn a_message_of_an_unknown_kind_is_passed_over() {
        assert_eq!(text(&proto::TrustMessage::default()), None);
    }
}
