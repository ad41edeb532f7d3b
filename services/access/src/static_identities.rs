//! Identities with their grants in a file: who calls is found by the hash of the
//! bearer token or by the name in the client certificate; what they may do is what
//! their entries allow, unless there is a policy folder. The file is read again while the
//! server runs: an entry that is changed or gone is withdrawn from who came by it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use catrust_domain::{AccountId, Sha256, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Action, Authorizer, BrokerBinding, Circumstances, Denial, Identity, InstanceResource};
use crate::identities::{Credential, Identities, IdentitiesError, IdentityEntry, PermissionSource};

/// The identities of one version of the file.
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
    entry: IdentityEntry,
    broker: Option<Arc<BrokerBinding>>,
    /// Version of the file.
    version: Arc<str>,
    /// Cancelled when a version comes into force that has no such entry.
    withdrawn: Arc<CancellationToken>,
}

impl StaticIdentities {
    /// Reads the text of a file; entries that stand unchanged in the version `before` are
    /// the same ones. `path` is for messages only.
    ///
    /// # Errors
    /// [`IdentitiesError`] with the line of each problem.
    pub fn parse(
        text: &str,
        path: &Path,
        permissions: PermissionSource,
        before: &Self,
    ) -> Result<Self, IdentitiesError> {
        let identities = Identities::parse(text, path, permissions)?;
        let hash = Sha256::of(text.as_bytes()).to_string();
        let version: Arc<str> = format!("static-{}", &hash[..16]).into();
        let entry = |entry: &IdentityEntry| {
            let principal = Arc::from(entry.principal.as_str());
            let broker = entry.broker.clone().map(Arc::new);
            let same = before.same_as(entry).map(|same| Arc::clone(&same.withdrawn));
            let withdrawn = same.unwrap_or_default();
            Arc::new(StaticEntry {
                principal,
                entry: entry.clone(),
                broker,
                version: Arc::clone(&version),
                withdrawn,
            })
        };
        let entries: Vec<_> = identities.entries().iter().map(entry).collect();
        let account =
            |entry: &Arc<StaticEntry>| (Arc::clone(&entry.principal), entry.entry.account_id.clone());
        let accounts = entries.iter().map(account).collect();
        Ok(Self { identities, entries, accounts })
    }

    fn find(&self, credential: &Credential) -> Option<Arc<StaticEntry>> {
        self.identities.by_credential(credential).map(|index| Arc::clone(&self.entries[index]))
    }

    /// The entry that is that one to the letter.
    fn same_as(&self, entry: &IdentityEntry) -> Option<&Arc<StaticEntry>> {
        let index = self.identities.by_credential(&entry.credential)?;
        self.entries.get(index).filter(|known| known.entry == *entry)
    }

    /// Withdraws the entries that the version `after` has not. It MUST be in force.
    pub fn make_way_for(&self, after: &Self) {
        for entry in self.entries.iter().filter(|entry| after.same_as(&entry.entry).is_none()) {
            entry.withdrawn.cancel();
        }
    }

    /// The entry of a bearer token, by its hash.
    #[must_use]
    pub fn by_token(&self, hash: &Sha256) -> Option<Arc<StaticEntry>> {
        self.find(&Credential::Token(*hash))
    }

    /// The entry of a client certificate, by its name.
    #[must_use]
    pub fn by_certificate(&self, name: &str) -> Option<Arc<StaticEntry>> {
        self.find(&Credential::Certificate(name.to_owned()))
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
            withdrawn: Arc::clone(&self.withdrawn),
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
        resource: &InstanceResource<'_>,
        _: &Circumstances,
    ) -> Result<Arc<str>, Denial> {
        let resource = resource.to_string();
        let denied = |action| Denial { action, reason: "its entry does not allow it".to_owned() };
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
    use crate::known_callers::KnownCallers;
    use crate::{Authenticator as _, Credentials};

    const CIRCUMSTANCES: Circumstances =
        Circumstances { source_address: None, now: Timestamp::from_micros(0) };

    fn parse(text: &str) -> StaticIdentities {
        after(text, &StaticIdentities::default())
    }

    fn after(text: &str, before: &StaticIdentities) -> StaticIdentities {
        StaticIdentities::parse(text, Path::new("i.toml"), PermissionSource::Identities, before).unwrap()
    }

    fn by_token(identities: StaticIdentities, token: &str) -> Identity {
        let callers = KnownCallers::new(None);
        callers.replace(identities);
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
        parse(&text)
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
        let everything = InstanceResource { region_id: None, account_id: None, instance_id: None };
        let may = |token, action| {
            let identities = parse(&text);
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
        let on = |account| InstanceResource {
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

    #[test]
    fn an_entry_that_is_changed_or_gone_is_withdrawn_and_another_stays() {
        let entry = |token: &[u8], allow: &str| {
            let hash = Sha256::of(token);
            format!(
                "[[identity]]\nprincipal = \"p\"\naccount_id = \"1\"\ntoken_sha256 = \"{hash}\"\nallow = \
                 [\"{allow}\"]\nresources = [\"acs:mq:*:*:*\"]\n"
            )
        };
        let (stays, changes, goes) =
            (entry(b"stays", "mq:*"), entry(b"changes", "mq:*"), entry(b"goes", "mq:*"));
        let first = parse(&(stays.clone() + &changes + &goes));
        let shown = |identities: &StaticIdentities, token: &[u8]| {
            identities.by_token(&Sha256::of(token)).unwrap().identity(None).withdrawn
        };
        let before = [&b"stays"[..], b"changes", b"goes"].map(|token| shown(&first, token));
        let second = after(&(entry(b"changes", "mq:Get*") + &stays), &first);
        assert!(before.iter().all(|shown| !shown.is_cancelled()), "not yet in force");
        first.make_way_for(&second);
        assert_eq!(before.map(|shown| shown.is_cancelled()), [false, true, true]);
        assert!(!shown(&second, b"changes").is_cancelled(), "whoever comes anew has the new entry");
        second.make_way_for(&parse(&goes));
        assert!(shown(&first, b"stays").is_cancelled(), "in two steps as well");
    }
}
