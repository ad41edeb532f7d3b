//! `catrust fleet propagation --watch`: a revision on its way, a line a change.

use std::time::Duration;

use catrust_proto::v1 as proto;
use tonic::Status;

use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Session, worth_repeating};

/// Times in a row that the stream may fail before the command gives up.
const MAX_FAILURES: u32 = 10;
/// Pause before it is opened again; a draining replica has another one beside it.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows until no broker in contact is pending, and over lost connections.
pub async fn run(instance: String, revision: u64, session: &Session, output: &Output) -> Result<(), Failure> {
    let mut follower = Follower { instance, revision, shown: None, failures: 0 };
    loop {
        match follower.follow(session, output).await {
            Ok(()) => return Ok(()),
            Err(Interruption::Failure(failure)) => return Err(failure),
            Err(Interruption::Stream(status)) => {
                follower.failures += 1;
                if follower.failures >= MAX_FAILURES || !worth_repeating(&status) {
                    return Err(session.failure(&status));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Why the stream was left.
enum Interruption {
    /// It broke; it may be opened again.
    Stream(Status),
    /// The command cannot go on.
    Failure(Failure),
}

struct Follower {
    instance: String,
    /// Stays with the first answer: the current one may be another after a break.
    revision: u64,
    shown: Option<proto::Propagation>,
    /// Since the last message.
    failures: u32,
}

impl Follower {
    async fn follow(&mut self, session: &Session, output: &Output) -> Result<(), Interruption> {
        let request = proto::WatchPropagationRequest {
            mqtt_instance_id: self.instance.clone(),
            revision: self.revision,
        };
        let mut client = session.fleet();
        let mut stream = client.watch_propagation(request).await.map_err(Interruption::Stream)?.into_inner();
        while let Some(message) = stream.message().await.map_err(Interruption::Stream)? {
            self.failures = 0;
            self.show(message, output).map_err(Interruption::Failure)?;
        }
        Ok(())
    }

    /// Prints a message, unless it is the one before a break again.
    fn show(&mut self, message: proto::WatchPropagationResponse, output: &Output) -> Result<(), Failure> {
        let Some(propagation) = &message.propagation else { return Ok(()) };
        self.revision = propagation.revision;
        if self.shown.as_ref() == Some(propagation) {
            return Ok(());
        }
        self.shown = Some(propagation.clone());
        output.message(&message, |message| message.propagation.as_ref().map(line))
    }
}

/// Counts, and the names of those that are not done.
fn line(propagation: &proto::Propagation) -> String {
    let named = |what: &str, count: u32, names: &[String]| match names {
        [] => format!("{what} {count}"),
        names => format!("{what} {count} ({})", names.join(", ")),
    };
    let parts = [
        format!("revision {}", propagation.revision),
        format!("applied {}", propagation.applied),
        named("pending", propagation.pending, &propagation.pending_broker_ids),
        named("refused", propagation.refused, &propagation.refused_broker_ids),
        named("lost", propagation.lost, &propagation.lost_broker_ids),
    ];
    crate::spelling::printable(&parts.join("  "), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_line_with_the_names_of_those_that_are_not_done() {
        let propagation = proto::Propagation {
            revision: 4,
            applied: 2,
            lost: 2,
            lost_broker_ids: vec!["b3".to_owned(), "b4".to_owned()],
            ..Default::default()
        };
        assert_eq!(line(&propagation), "revision 4  applied 2  pending 0  refused 0  lost 2 (b3, b4)");
    }

    #[test]
    fn after_a_break_the_revision_stays_and_nothing_is_shown_twice() {
        let propagation = proto::Propagation { revision: 4, applied: 2, ..Default::default() };
        let message =
            proto::WatchPropagationResponse { propagation: Some(propagation.clone()), ..Default::default() };
        let mut follower = Follower { instance: "i".to_owned(), revision: 0, shown: None, failures: 0 };
        let output = Output::new(crate::arguments::Format::Table);
        follower.show(message.clone(), &output).unwrap();
        follower.show(message, &output).unwrap();
        assert_eq!((follower.revision, follower.shown), (4, Some(propagation)));
    }
}
