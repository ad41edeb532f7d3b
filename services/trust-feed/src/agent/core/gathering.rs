//! Without a saved state: what several servers have, before any of it counts.
//!
//! A server may show an ended log epoch, or an old bundle; an agent that remembers nothing
//! has no floor to tell by. So it hears all of them out for a moment, and starts with the
//! highest.

use std::time::Duration;

use catrust_domain::InstanceId;
use catrust_proto::v1 as proto;

use super::{Core, Moment, Output};
use crate::bundle::{TrustError, TrustState};
use crate::canonical::Verified;

/// How long the slowest server is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct FirstBundles {
    /// When it ends at the latest, by the monotonic clock.
    until: Duration,
    highest: Option<(TrustState, Verified<proto::TrustBundle>)>,
}

impl FirstBundles {
    /// Looks at one more bundle.
    ///
    /// # Errors
    /// What is wrong with it. One that is only lower is nothing wrong.
    fn take(
        &mut self,
        instance_id: &InstanceId,
        bundle: Verified<proto::TrustBundle>,
    ) -> Result<(), TrustError> {
        match &mut self.highest {
            Some((state, highest)) => match state.replace(&bundle) {
                Ok(true) => *highest = bundle,
                Ok(false) | Err(TrustError::Rollback { .. }) => {}
                Err(error) => return Err(error),
            },
            None => self.highest = Some((TrustState::new(instance_id, &bundle)?, bundle)),
        }
        Ok(())
    }

    /// Drops a bundle by a key that is not to be believed any more.
    pub fn forget(&mut self, disowned: impl Fn(Option<&proto::Signature>) -> bool) {
        self.highest.take_if(|(_, bundle)| disowned(bundle.signature.as_ref()));
    }
}

impl Core {
    /// Begins to ask everybody, where there is more than one to ask.
    pub(super) fn begin_gathering(&mut self, now: Moment) {
        if self.settings.servers > 1 {
            self.gathering = Some(FirstBundles { until: now.monotonic + PATIENCE, highest: None });
            self.outputs.push_back(Output::AskEveryServer);
        }
    }

    /// Looks at a bundle, where bundles are gathered; gives it back where they are not.
    pub(super) fn gather(
        &mut self,
        now: Moment,
        bundle: Verified<proto::TrustBundle>,
    ) -> Option<Verified<proto::TrustBundle>> {
        let Some(gathering) = &mut self.gathering else { return Some(bundle) };
        let revision = bundle.revision;
        if let Err(error) = gathering.take(&self.settings.instance_id, bundle) {
            self.refuse(now, revision, error.into());
        }
        None
    }

    /// Starts with the highest of what came.
    pub(super) fn end_gathering(&mut self, now: Moment) {
        let Some(gathering) = self.gathering.take() else { return };
        match gathering.highest {
            Some((_, bundle)) => self.take_bundle(now, bundle),
            None => self.want_snapshot(now),
        }
    }

    /// Ends it when its time is up.
    pub(super) fn tick_gathering(&mut self, now: Moment) {
        if self.gathering.as_ref().is_some_and(|gathering| gathering.until <= now.monotonic) {
            self.end_gathering(now);
        }
    }
}
