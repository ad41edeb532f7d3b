//! `catrust fleet propagation --watch`: a revision on its way, a line a change.

use catrust_proto::v1 as proto;

use crate::api_client::ApiClient;
use crate::failure::Failure;
use crate::output::Printer;
use crate::stream::{self, StreamFailure};

/// Follows until no broker in contact is pending, and over lost connections.
pub(crate) async fn run(
    instance: String,
    revision: u64,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let mut watch = PropagationWatch { instance, revision, shown: None };
    stream::follow(api, async |heard| watch.read(heard, api, output).await).await
}

struct PropagationWatch {
    instance: String,
    /// Stays with the first answer: the current one may be another after a break.
    revision: u64,
    shown: Option<proto::Propagation>,
}

impl PropagationWatch {
    async fn read(
        &mut self,
        heard: &mut bool,
        api: &ApiClient,
        output: &Printer,
    ) -> Result<(), StreamFailure> {
        let request = proto::WatchPropagationRequest {
            mqtt_instance_id: self.instance.clone(),
            revision: self.revision,
        };
        let mut stream = api.fleet().watch_propagation(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            *heard = true;
            self.show(message, output)?;
        }
        Ok(())
    }

    /// Prints a message, unless it is the one before a break again.
    fn show(&mut self, message: proto::WatchPropagationResponse, output: &Printer) -> Result<(), Failure> {
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
        crate::spelling::revision(propagation.revision),
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
        let mut watch = PropagationWatch { instance: "i".to_owned(), revision: 0, shown: None };
        let output = Printer::new(crate::arguments::OutputFormat::Table);
        watch.show(message.clone(), &output).unwrap();
        watch.show(message, &output).unwrap();
        assert_eq!((watch.revision, watch.shown), (4, Some(propagation)));
    }
}
