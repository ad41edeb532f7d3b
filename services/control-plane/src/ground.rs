//! Whether the log is still the one that this replica has acknowledged, read and signed.
//!
//! Where it is not, the database was set back: a restore, or a standby promoted without its
//! tail. While that lasts, nothing is changed and nothing is signed, streams and waits end, and
//! readiness fails with the reason. Unsigned reads go on, marked.
//!
//! It is a verdict and no latch: the log is looked at again every second, and what contradicts
//! nothing any more (a new epoch has begun, or the log has its end again) stops nothing.

mod attentive_log;
mod judging;
mod server_in_use;
mod watching;

use std::sync::Arc;
use std::time::Instant;

use catrust_event_store::StoreError;
use tokio::sync::watch;

pub(crate) use self::attentive_log::AttentiveLog;
pub(crate) use self::judging::GroundJudge;
pub(crate) use self::server_in_use::ServerInUse;
pub(crate) use self::watching::GroundWatcher;
use crate::error::ApiError;

/// What this replica knows of the ground that it stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum GroundState {
    /// The log has all that it is known to have had.
    #[default]
    Sound,
    /// A reader has missed what it had read before; that is being confirmed.
    Doubted,
    /// It has not, or a later epoch of it is known.
    SetBack {
        /// What was seen, by whom, and what the log says instead.
        reason: Arc<str>,
        /// When this replica found out.
        since: Instant,
    },
}

/// The state, for all who have to stop; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogGround {
    state: Arc<watch::Sender<GroundState>>,
}

impl LogGround {
    /// Refuses what would acknowledge or sign something while the log is set back, or in doubt.
    ///
    /// # Errors
    /// [`StoreError::SetBack`] or [`StoreError::Unavailable`], as an [`ApiError`].
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        self.check_log().map_err(ApiError::Store)
    }

    /// As [`LogGround::check`].
    ///
    /// # Errors
    /// The same.
    pub(crate) fn check_log(&self) -> Result<(), StoreError> {
        match &*self.state.borrow() {
            GroundState::Sound => Ok(()),
            GroundState::Doubted => {
                Err(StoreError::Unavailable("it is in doubt whether the log was set back".into()))
            }
            GroundState::SetBack { reason, .. } => Err(StoreError::SetBack { reason: reason.to_string() }),
        }
    }

    /// Waits until the log is set back; tells callers so.
    pub(crate) async fn lost(&self) -> ApiError {
        let mut followed = self.follow();
        match followed.wait_for(|state| matches!(state, GroundState::SetBack { .. })).await.as_deref() {
            Ok(GroundState::SetBack { reason, .. }) => {
                ApiError::Store(StoreError::SetBack { reason: reason.to_string() })
            }
            // The sender is here.
            _ => ApiError::Draining,
        }
    }

    /// Why nothing is changed or signed; `None` while the ground is sound.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        match &*self.state.borrow() {
            GroundState::Sound | GroundState::Doubted => None,
            GroundState::SetBack { reason, .. } => Some(Arc::clone(reason)),
        }
    }

    /// Follows the state.
    pub(crate) fn follow(&self) -> watch::Receiver<GroundState> {
        self.state.subscribe()
    }

    /// Whether nothing speaks against signing.
    pub(crate) fn is_sound(&self) -> bool {
        *self.state.borrow() == GroundState::Sound
    }

    /// Takes in a doubt that is being confirmed: nothing is changed or signed meanwhile.
    pub(crate) fn doubt(&self) {
        self.state.send_if_modified(|state| {
            let news = *state == GroundState::Sound;
            if news {
                *state = GroundState::Doubted;
            }
            news
        });
    }

    /// Takes in that the log is set back. The first reason stays, and with it the time.
    pub(crate) fn lose(&self, reason: &str) {
        self.state.send_if_modified(|state| {
            let news = !matches!(state, GroundState::SetBack { .. });
            if news {
                tracing::error!(
                    reason,
                    "the log was set back: nothing is changed or signed until it has its end again, or a new \
                     epoch has begun; see `catrust-server epoch status`"
                );
                *state = GroundState::SetBack { reason: reason.into(), since: Instant::now() };
            }
            news
        });
    }

    /// Takes in that a doubt was unfounded, or that nothing contradicts the log any more.
    pub(crate) fn regain(&self) {
        self.state.send_if_modified(|state| {
            if matches!(state, GroundState::SetBack { .. }) {
                tracing::warn!("nothing contradicts the log any more: changes are taken again");
            }
            std::mem::replace(state, GroundState::Sound) != GroundState::Sound
        });
    }

    /// Takes in that a doubt was unfounded; what is known to be set back stays so.
    pub(crate) fn regain_doubted(&self) {
        if *self.state.borrow() == GroundState::Doubted {
            self.regain();
        }
    }

    /// As [`LogGround::regain`], and lets a doubt stand: whoever has it is confirming it.
    pub(crate) fn regain_lost(&self) {
        if self.reason().is_some() {
            self.regain();
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    // Ground rules 6 and 8: no change is taken (`LogSetBack`, FAILED_PRECONDITION), streams and
    // waits end with the same code; a verdict, not a latch.
    #[tokio::test]
    async fn what_is_set_back_stops_callers_until_it_is_sound_again() {
        let ground = LogGround::default();
        assert!(ground.check().is_ok() && ground.reason().is_none());
        let waiting = tokio::spawn({
            let ground = ground.clone();
            async move { ground.lost().await }
        });
        ground.lose("it ends at 4");
        ground.lose("it ends at 3");
        assert_eq!(ground.reason().as_deref(), Some("it ends at 4"), "the first reason stays");
        let refused = ground.check().unwrap_err();
        assert_eq!(refused.codes(), (Code::FailedPrecondition, "LogSetBack"));
        assert_eq!(waiting.await.unwrap().codes(), refused.codes());
        ground.doubt();
        assert!(ground.reason().is_some(), "a doubt does not end it");
        ground.regain();
        assert!(ground.check().is_ok());
        ground.doubt();
        assert_eq!(ground.check().unwrap_err().codes(), (Code::Unavailable, "SystemOverFlow"));
        ground.regain_lost();
        assert!(!ground.is_sound(), "whoever doubts has to say that it was unfounded");
        ground.regain_doubted();
        assert!(ground.is_sound());
        ground.lose("it ends at 2");
        ground.regain_doubted();
        assert!(ground.reason().is_some(), "a set-back is no doubt");
    }
}
