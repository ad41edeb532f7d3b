//! `catrust watch`: the feed of an instance, a line a message.

use std::time::Duration;

use catrust_proto::v1 as proto;
use clap::Args;
use proto::trust_message::Message;
use tonic::{Code, Status};

use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Session, worth_repeating};
use crate::spelling;

/// Times in a row that the feed may fail before the command gives up.
const MAX_FAILURES: u32 = 10;
/// Pause before the feed is opened again; a draining replica has another one beside it.
const PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchCommand {
    /// Instance to follow.
    #[arg(env = "CATRUST_INSTANCE")]
    instance: String,
    /// Changes after this revision; the whole bundle first otherwise.
    #[arg(long, value_name = "N")]
    after_revision: Option<u64>,
    /// End when this revision is there.
    #[arg(long, value_name = "N")]
    until_revision: Option<u64>,
    /// Name of a broker to watch as.
    #[arg(long, value_name = "ID", default_value = "")]
    broker_id: String,
    /// Show the heads too, one every 2 s and after each start, and key sets.
    #[arg(long)]
    heads: bool,
}

/// Follows the feed until it is told to stop, and over lost connections.
pub async fn run(command: WatchCommand, session: &Session, output: &Output) -> Result<(), Failure> {
    let mut follower = Follower { seen: command.after_revision, failures: 0, command };
    loop {
        match follower.follow(session, output).await {
            Ok(()) => return Ok(()),
            Err(Interruption::Failure(failure)) => return Err(failure),
            Err(Interruption::Feed(status)) => {
                follower.failures += 1;
                if follower.failures >= MAX_FAILURES || !worth_repeating(&status) {
                    return Err(session.failure(&status));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Why the feed was left.
enum Interruption {
    /// The feed ended; it may be opened again.
    Feed(Status),
    /// The command cannot go on.
    Failure(Failure),
}

/// Where the reader is.
struct Follower {
    command: WatchCommand,
    /// Last revision that was shown.
    seen: Option<u64>,
    /// Since the last message.
    failures: u32,
}

impl Follower {
    /// Opens the feed and shows it until it ends or the wanted revision is there.
    async fn follow(&mut self, session: &Session, output: &Output) -> Result<(), Interruption> {
        let request = proto::WatchTrustRequest {
            mqtt_instance_id: self.command.instance.clone(),
            broker_id: self.command.broker_id.clone(),
            after_revision: self.seen,
        };
        let mut client = session.trust();
        let mut feed = client.watch_trust(request).await.map_err(Interruption::Feed)?.into_inner();
        loop {
            let message = feed.message().await.map_err(Interruption::Feed)?;
            let Some(message) = message else {
                return Err(Interruption::Feed(Status::new(Code::Unavailable, "the feed ended")));
            };
            self.failures = 0;
            if self.show(&message, output).map_err(Interruption::Failure)? {
                return Ok(());
            }
        }
    }

    /// Prints the message; true when the wanted revision is there.
    fn show(&mut self, message: &proto::TrustMessage, output: &Output) -> Result<bool, Failure> {
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
    let line = format!("{}  revision {revision}  {what}", spelling::time(time.as_ref()));
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

    fn follower(until_revision: Option<u64>) -> Follower {
        let command = WatchCommand {
            instance: "fleet-a".to_owned(),
            after_revision: None,
            until_revision,
            broker_id: String::new(),
            heads: false,
        };
        Follower { command, seen: None, failures: 3 }
    }

    #[test]
    fn a_change_is_one_line() {
        let expected = "2026-03-01T12:00:00Z  revision 4  CaCertificateInactivated at position 12: \
                        7A0F is INACTIVE (KEY), CN=Acme  \"key leaked\"";
        assert_eq!(text(&change()).unwrap(), expected);
    }

    #[test]
    fn the_revision_that_was_shown_last_is_where_a_new_feed_starts() {
        let output = Output::new(crate::arguments::Format::Table);
        let mut follower = follower(Some(5));
        assert!(!follower.show(&change(), &output).unwrap());
        assert_eq!(follower.seen, Some(4));
        follower.command.until_revision = Some(4);
        assert!(follower.show(&change(), &output).unwrap());
    }

    #[test]
    fn a_head_moves_nothing() {
        let head = proto::Head { revision: 9, ..Default::default() };
        let message = proto::TrustMessage { message: Some(Message::Head(head)), request_id: String::new() };
        let mut follower = follower(Some(1));
        let output = Output::new(crate::arguments::Format::Table);
        assert!(!follower.show(&message, &output).unwrap());
        assert_eq!(follower.seen, None);
    }

    #[test]
    fn a_message_of_an_unknown_kind_is_passed_over() {
        assert_eq!(text(&proto::TrustMessage::default()), None);
    }
}
