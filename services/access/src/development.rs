//! One fixed identity that may do everything: `catrust-server dev`, on loopback only.

use std::sync::Arc;

use catrust_domain::{AccountId, Timestamp};

use super::{
    Action, Authenticator, Authorizer, Circumstances, Credentials, Denial, Identity, InstanceResource,
    InvalidCredentials,
};

/// Account and principal of the development identity.
pub const DEVELOPMENT_ACCOUNT: &str = "dev";

/// Takes everybody for the development identity, and allows it everything. The
/// owner check still applies: its account is [`DEVELOPMENT_ACCOUNT`].
#[derive(Debug)]
pub struct Development {
    identity: Identity,
    policy_version: Arc<str>,
}

impl Development {
    /// The identity of `account_id`.
    #[must_use]
    pub fn new(account_id: AccountId) -> Self {
        let principal = Arc::from(DEVELOPMENT_ACCOUNT);
        let identity = Identity {
            principal,
            account_id,
            operator: true,
            broker: None,
            entry: None,
            withdrawn: Arc::default(),
            expires_at: None,
        };
        Self { identity, policy_version: Arc::from("development") }
    }
}

impl Authenticator for Development {
    fn authenticate(&self, _: &Credentials<'_>, _: Timestamp) -> Result<Identity, InvalidCredentials> {
        Ok(self.identity.clone())
    }
}

impl Authorizer for Development {
    fn authorize(
        &self,
        _: &Identity,
        _: Action,
        _: &InstanceResource<'_>,
        _: &Circumstances,
    ) -> Result<Arc<str>, Denial> {
        Ok(Arc::clone(&self.policy_version))
    }
}
