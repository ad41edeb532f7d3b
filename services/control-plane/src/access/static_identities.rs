//! Identities with their grants in a file: who calls is found by the hash of the
//! bearer token or by the name in the client certificate; what they may do is what
//! their entries allow, unless there is a policy folder.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use catrust_domain::{AccountId, Sha256, Timestamp};

use super::{Action, Authorizer, BrokerBinding, Circumstances, Denied, Identity, Resource};
use crate::config::{self, ConfigError, Identities, PermissionSource};

/// The identities of one file, as read at the start.
#[derive(Debug, Default)]
pub struct StaticIdentities {
    identities: Identities,
    entries: Vec<Arc<StaticEntry>>,
    accounts: HashMap<Arc<str>, AccountId>,
}

/// One entry of the file.
#[derive(Debug)]
pub struct StaticEntry {
    /// Name of the principal.
    pub principal: Arc<str>,
    entry: config::Identity,
    broker: Option<Arc<BrokerBinding>>,
    /// Version of the file.
    version: Arc<str>,
}

impl StaticIdentities {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of each problem.
    pub fn load(path: &Path, permissions: PermissionSource) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, source))?;
        Self::parse(&text, path, permissions)
    }

    pub(super) fn parse(text: &str, path: &Path, permissions: PermissionSource) -> Result<Self, ConfigError> {
        let identities = Identities::parse(text, path, permissions)?;
        let hash = Sha256::of(text.as_bytes()).to_string();
        let version: Arc<str> = format!("static-{}", &hash[..16]).into();
        let entry = |entry: &config::Identity| {
            let principal = Arc::from(entry.principal.as_str());
            let broker = entry.broker.clone().map(Arc::new);
            Arc::new(StaticEntry { principal, entry: entry.clone(), broker, version: Arc::clone(&version) })
        };
        let entries: Vec<_> = identities.entries().iter().map(entry).collect();
        let account =
            |entry: &Arc<StaticEntry>| (Arc::clone(&entry.principal), entry.entry.account_id.clone());
        let accounts = entries.iter().map(account).collect();
        Ok(Self { identities, entries, accounts })
    }

    /// The entry of a bearer token, by its hash.
    #[must_use]
    pub fn by_token(&self, hash: &Sha256) -> Option<Arc<StaticEntry>> {
        self.identities.by_token_hash(hash).map(|index| Arc::clone(&self.entries[index]))
    }

    /// The entry of a client certificate, by its name.
    #[must_use]
    pub fn by_certificate(&self, name: &str) -> Option<Arc<StaticEntry>> {
        self.identities.by_certificate(name).map(|index| Arc::clone(&self.entries[index]))
    }

    /// The account that the file has for a principal.
    #[must_use]
    pub fn account_of(&self, principal: &str) -> Option<&AccountId> {
        self.accounts.get(principal)
    }
}

impl StaticEntry {
    /// Somebody who has shown the entry's token or certificate.
    pub(super) fn identity(self: Arc<Self>, expires_at: Option<Timestamp>) -> Identity {
        Identity {
            principal: Arc::clone(&self.principal),
            account_id: self.entry.account_id.clone(),
            operator: self.entry.operator,
            broker: self.broker.clone(),
            expires_at,
            entry: Some(self),
        }
    }
}

/// Allows what the entry of the identity allows, and nothing to who has none.
#[derive(Clone, Copy, Debug)]
pub struct EntryGrants;

impl Authorizer for EntryGrants {
    fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        resource: &Resource<'_>,
        _: &Circumstances,
    ) -> Result<Arc<str>, Denied> {
        let resource = resource.to_string();
        let denied = |action| Denied { action, reason: "its entry does not allow it".to_owned() };
        let entry = identity.entry.as_ref().ok_or_else(|| denied(action))?;
        let allowed = |action: &Action| entry.entry.allows(action.name(), &resource);
        match action.with_dependent().find(|action| !allowed(action)) {
            None => Ok(Arc::clone(&entry.version)),
            Some(action) => Err(denied(action)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::known_callers::KnownCallers;
    use crate::access::{Authenticator as _, Credentials};

    const CIRCUMSTANCES: Circumstances =
        Circumstances { source_address: None, now: Timestamp::from_micros(0) };

    fn by_token(identities: StaticIdentities, token: &str) -> Identity {
        let callers = KnownCallers { identities: Arc::new(identities), tokens: None };
        let credentials = Credentials { bearer_token: Some(token), client_certificate: None };
        callers.authenticate(&credentials, CIRCUMSTANCES.now).unwrap()
    }

    fn identities() -> StaticIdentities {
        let text = format!(
            r#"
            [[identity]]
            principal = "alice"
            account_id = "1"
            token_sha256 = "{}"
            allow = ["mq:Get*"]
            resources = ["acs:mq:*:1:*"]

            [[identity]]
            principal = "svc"
            account_id = "2"
            certificate = "spiffe://example.org/svc"
            allow = ["mq:*"]
            resources = ["acs:mq:*:*:*"]
            "#,
            Sha256::of(b"secret-token")
        );
        StaticIdentities::parse(&text, Path::new("identities.toml"), PermissionSource::Identities).unwrap()
    }

    #[test]
    fn a_credential_has_the_grants_of_its_own_entry_only() {
        let entry = |token: &[u8], allow: &str| {
            let hash = Sha256::of(token);
            format!(
                "[[identity]]\nprincipal = \"p\"\naccount_id = \"1\"\ntoken_sha256 = \"{hash}\"\nallow = \
                 [\"{allow}\"]\nresources = [\"acs:mq:*:*:*\"]\n"
            )
        };
        let text = entry(b"old", "mq:*") + &entry(b"new", "mq:GetCaCertificate");
        let everything = Resource { region_id: None, account_id: None, instance_id: None };
        let may = |token, action| {
            let identities =
                StaticIdentities::parse(&text, Path::new("i.toml"), PermissionSource::Identities).unwrap();
            let identity = by_token(identities, token);
            EntryGrants.authorize(&identity, action, &everything, &CIRCUMSTANCES).is_ok()
        };
        assert!(may("old", Action::UpdateInstance) && may("new", Action::GetCaCertificate));
        assert!(!may("new", Action::UpdateInstance));
    }

    #[test]
    fn nothing_is_allowed_but_what_the_entries_say() {
        let alice = by_token(identities(), "secret-token");
        let (region, own, other) = ("r".parse().unwrap(), "1".parse().unwrap(), "2".parse().unwrap());
        let instance = "i".parse().unwrap();
        let on = |account| Resource {
            region_id: Some(&region),
            account_id: Some(account),
            instance_id: Some(&instance),
        };
        let may =
            |action, account| EntryGrants.authorize(&alice, action, &on(account), &CIRCUMSTANCES).is_ok();
        assert!(may(Action::GetCaCertificate, &own));
        assert!(!may(Action::GetCaCertificate, &other));
        assert!(!may(Action::DeleteCaCertificate, &own));
        let stranger = Identity { entry: None, ..alice.clone() };
        let resource = on(&own);
        assert!(
            EntryGrants.authorize(&stranger, Action::GetCaCertificate, &resource, &CIRCUMSTANCES).is_err()
        );
    }
}
