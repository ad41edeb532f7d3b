//! Places at which a test lets a commit die.

/// A point in the life of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStep {
    /// The append lock is held.
    Locked,
    /// The rows that the batch needs are loaded.
    Loaded,
    /// The commands are decided, in memory.
    Decided,
    /// Everything is written, nothing committed.
    Written,
    /// Committed, nobody answered.
    Committed,
}

#[cfg(feature = "contract")]
impl CommitStep {
    /// All steps, in their order.
    pub const ALL: [Self; 5] = [Self::Locked, Self::Loaded, Self::Decided, Self::Written, Self::Committed];
}

/// The fault that a test has planted; without the feature `contract` there is none.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    #[cfg(feature = "contract")]
    planted: std::sync::Mutex<Option<CommitStep>>,
}

impl Faults {
    /// Lets the next commit that reaches `step` die there.
    #[cfg(feature = "contract")]
    pub(crate) fn plant(&self, step: CommitStep) {
        *self.planted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(step);
    }

    /// Dies here where a test wants it.
    ///
    /// # Errors
    /// Only where a test planted a fault.
    #[cfg(feature = "contract")]
    pub(crate) fn reach(&self, step: CommitStep) -> Result<(), Crash> {
        let mut planted = self.planted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *planted == Some(step) {
            *planted = None;
            return Err(Crash(step));
        }
        Ok(())
    }

    #[cfg(not(feature = "contract"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the same signature as with faults")]
    pub(crate) const fn reach(&self, _step: CommitStep) -> Result<(), Crash> {
        Ok(())
    }
}

/// A test let the commit die: as a killed process, it neither retries nor settles.
#[derive(Debug, thiserror::Error)]
#[error("a test let the commit die when {0:?}")]
pub(crate) struct Crash(pub(crate) CommitStep);
