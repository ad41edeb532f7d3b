//! What policies answer.

use std::fmt;

/// Whether a request is allowed, and which policies say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is.
    pub allowed: bool,
    /// The policies that decided, as `ACCOUNT/FILE:LINE`, in that order: those that allow
    /// it, or those that deny it. None where nothing allows it.
    pub policies: Vec<String>,
    /// What could not be evaluated. One of these refuses the request: a denial that
    /// fails must not be one that does not count.
    pub failures: Vec<String>,
}

impl Decision {
    /// Nothing allows it.
    pub(crate) const fn default_deny() -> Self {
        Self { allowed: false, policies: Vec::new(), failures: Vec::new() }
    }

    pub(crate) fn failed(failure: impl fmt::Display) -> Self {
        Self { failures: vec![failure.to_string()], ..Self::default_deny() }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies = self.policies.join(", ");
        match (self.allowed, self.policies.is_empty(), self.failures.is_empty()) {
            (true, ..) => write!(f, "allowed by {policies}"),
            (false, _, false) => write!(f, "cannot be evaluated: {}", self.failures.join("; ")),
            (false, false, true) => write!(f, "denied by {policies}"),
            (false, true, true) => f.write_str("no policy allows it"),
        }
    }
}
