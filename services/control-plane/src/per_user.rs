//! How many of something each user holds right now, and no more than a share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by user. Clones share the counts; memory is that of the users who hold any.
#[derive(Clone, Debug)]
pub(crate) struct PerUser {
    held: Arc<Mutex<HashMap<Arc<str>, usize>>>,
    most: usize,
}

/// One of a user's share; given back when dropped.
#[derive(Debug)]
pub(crate) struct UserShare {
    of: PerUser,
    user: Arc<str>,
}

impl PerUser {
    /// At most `most` for each user.
    #[must_use]
    pub(crate) fn new(most: usize) -> Self {
        Self { held: Arc::default(), most: most.max(1) }
    }

    /// How many each user may hold.
    #[must_use]
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// Takes one, unless the user holds its share already.
    #[must_use]
    pub(crate) fn take(&self, user: &Arc<str>) -> Option<UserShare> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(Arc::clone(user)).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(UserShare { of: self.clone(), user: Arc::clone(user) })
    }
}

impl Drop for UserShare {
    fn drop(&mut self) {
        let mut held = self.of.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_share_and_leaves_nothing_behind() {
        let (shares, one, other) = (PerUser::new(2), Arc::from("one"), Arc::from("other"));
        let held = [shares.take(&one), shares.take(&one)];
        assert!(held.iter().all(Option::is_some) && shares.take(&one).is_none());
        assert!(shares.take(&other).is_some(), "another user is not touched");
        drop(held);
        assert!(shares.take(&one).is_some());
        assert!(shares.held.lock().unwrap().is_empty());
    }
}
