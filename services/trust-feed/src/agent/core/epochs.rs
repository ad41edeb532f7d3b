//! What log epochs mean to the core: which are believed, and what becomes of freshness when
//! another one begins.

use std::time::Duration;

use catrust_domain::{LogEpoch, Timestamp};
use catrust_proto::v1 as proto;

use super::{ComingHead, Core, MessageRefusal, Moment};
use crate::canonical::Verified;
use crate::epoch::began_at;
use crate::parse;

impl Core {
    /// Refuses an epoch that begins after this machine's clock and the skew.
    ///
    /// # Errors
    /// [`MessageRefusal::EpochAhead`].
    pub(super) fn check_epoch(&self, now: Moment, revision: u64) -> Result<(), MessageRefusal> {
        let (epoch, latest) = (LogEpoch::of_revision(revision), self.clock.present(now).latest);
        // The first epoch has no beginning.
        if epoch == LogEpoch::FIRST || began_at(epoch) <= latest {
            return Ok(());
        }
        let ahead = began_at(epoch).micros().saturating_sub(latest.micros());
        let ahead = Duration::from_micros(u64::try_from(ahead).unwrap_or(0));
        Err(MessageRefusal::EpochAhead { epoch, ahead })
    }

    /// A head of an ended epoch proves nothing. One that was made a while after the state's
    /// epoch had begun tells of a server that does not know of it.
    pub(super) fn take_head_of_ended_epoch(
        &mut self,
        now: Moment,
        coming: ComingHead,
        head: &Verified<proto::Head>,
    ) {
        if let Err(refusal) = self.check_ended(now, head) {
            self.refuse_head(now, coming, head.revision, refusal);
        }
    }

    fn check_ended(&self, now: Moment, head: &Verified<proto::Head>) -> Result<(), MessageRefusal> {
        let Some(held) = &self.held else { return Ok(()) };
        let issued_at = parse::time("issued_at", head.issued_at.as_ref())?;
        let valid_until = parse::time("valid_until", head.valid_until.as_ref())?;
        self.clock.check(issued_at, valid_until, now)?;
        if !held.is_older_than(issued_at, now, self.settings.clock_skew) {
            return Ok(());
        }
        let enforced = held.state.revision();
        Err(MessageRefusal::LogRolledBack { revision: head.revision, enforced })
    }

    /// The state came to another epoch: what heads of the one before proved, they proved of
    /// another history.
    pub(super) fn leave_epoch(&mut self, before: Option<u64>) {
        if before.map(LogEpoch::of_revision) != self.revision().map(LogEpoch::of_revision) {
            self.clock.forget();
            self.head_saved_at = None;
            self.newest_head = None;
            self.shown_less_at = None;
        }
    }

    /// Whether the state is of an epoch that has not begun yet by this machine's clock. One
    /// from the disk may be: it stays the floor, and admits nobody.
    pub(super) fn is_of_the_future(&self, now: Moment) -> bool {
        self.revision().is_some_and(|revision| self.check_epoch(now, revision).is_err())
    }

    /// Keeps the newest head that came before any state, for the state that comes.
    pub(super) fn keep_first_head(&mut self, now: Moment, coming: ComingHead, head: Verified<proto::Head>) {
        let order = |head: &proto::Head| {
            (head.revision, parse::time("issued_at", head.issued_at.as_ref()).unwrap_or(Timestamp::FIRST))
        };
        if self.behind.as_ref().is_none_or(|(_, kept, _)| order(kept) <= order(&head)) {
            self.behind = Some((coming, head, now.monotonic));
        }
    }
}
