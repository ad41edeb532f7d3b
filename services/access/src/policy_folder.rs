//! Permission by the policies in a folder (`auth.policy_dir`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use catrust_domain::{AccountId, InstanceId, RegionId};
use catrust_policy::{AccessRequest, Policies};

use super::{Action, Authorizer, Circumstances, Denial, Identity, InstanceResource};

/// The folder, and what is in force of it.
#[derive(Debug)]
pub struct PolicyFolder {
    path: PathBuf,
    /// Present once it was read: nothing is allowed before.
    in_force: ArcSwapOption<PolicyVersion>,
}

/// One version of the policies. A call is decided by one of them from its first question
/// to its last.
#[derive(Debug)]
struct PolicyVersion {
    policies: Policies,
    version: Arc<str>,
}

impl From<Policies> for PolicyVersion {
    fn from(policies: Policies) -> Self {
        Self { version: Arc::from(policies.version()), policies }
    }
}

impl PolicyFolder {
    /// A folder that was not read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), in_force: ArcSwapOption::empty() }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version in force.
    #[must_use]
    pub fn version(&self) -> Option<Arc<str>> {
        self.in_force.load().as_ref().map(|in_force| Arc::clone(&in_force.version))
    }

    /// Puts policies in force, all at once. Decisions that were remembered go with the
    /// policies that they were made by.
    pub fn replace(&self, policies: Policies) {
        self.in_force.store(Some(Arc::new(policies.into())));
    }
}

impl Authorizer for PolicyFolder {
    fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        resource: &InstanceResource<'_>,
        circumstances: &Circumstances,
    ) -> Result<Arc<str>, Denial> {
        let in_force = self.in_force.load();
        let Some(in_force) = &*in_force else {
            return Err(Denial { action, reason: "no policies were read yet".to_owned() });
        };
        for action in action.with_dependent() {
            let decision = in_force.policies.decide(&AccessRequest {
                principal: &identity.principal,
                account_id: identity.account_id.as_str(),
                operator: identity.operator,
                action,
                resource: catrust_policy::Resource {
                    region_id: resource.region_id.map_or("*", RegionId::as_str),
                    account_id: resource.account_id.map_or("*", AccountId::as_str),
                    instance_id: resource.instance_id.map_or("*", InstanceId::as_str),
                },
                source_ip: circumstances.source_address,
                time_ms: circumstances.now.micros().div_euclid(1_000),
            });
            if !decision.allowed {
                return Err(Denial { action, reason: decision.to_string() });
            }
        }
        Ok(Arc::clone(&in_force.version))
    }
}

#[cfg(test)]
mod tests {
    use catrust_domain::Timestamp;
    use catrust_policy::{PolicyBundle, PolicyFile};

    use super::*;

    fn compiled(text: &str) -> Policies {
        let file = PolicyFile::new("1", "a.cedar", text.to_owned()).unwrap();
        Policies::compile(&PolicyBundle::new(vec![file])).unwrap()
    }

    fn folder(text: &str) -> PolicyFolder {
        let folder = PolicyFolder::new(Path::new(""));
        folder.replace(compiled(text));
        folder
    }

    fn asked(folder: &PolicyFolder, action: Action) -> Result<Arc<str>, Denial> {
        let identity = Identity {
            principal: Arc::from("alice"),
            account_id: "1".parse().unwrap(),
            operator: false,
            broker: None,
            entry: None,
            withdrawn: Default::default(),
            expires_at: None,
        };
        let (region, account, instance) =
            ("r".parse().unwrap(), "1".parse().unwrap(), "fleet-a".parse().unwrap());
        let resource = InstanceResource {
            region_id: Some(&region),
            account_id: Some(&account),
            instance_id: Some(&instance),
        };
        let circumstances = Circumstances { source_address: None, now: Timestamp::from_micros(-1) };
        folder.authorize(&identity, action, &resource, &circumstances)
    }

    #[test]
    fn the_dependent_action_is_needed_as_well() {
        let one = |action: &str| format!("permit(principal, action == Action::\"{action}\", resource);\n");
        let own = one("mq:UnregisterCaCertificate");
        let denied = asked(&folder(&own), Action::UnregisterCaCertificate).unwrap_err();
        assert_eq!(denied.action, Action::MqttInstanceAccess);
        assert_eq!(denied.reason, "no policy allows it");
        let dependent = one("mq:MqttInstanceAccess");
        let denied = asked(&folder(&dependent), Action::UnregisterCaCertificate).unwrap_err();
        assert_eq!(denied.action, Action::UnregisterCaCertificate);
        let both = folder(&(own + &dependent));
        assert_eq!(asked(&both, Action::UnregisterCaCertificate).ok(), both.version());
    }

    #[test]
    fn what_takes_their_place_decides_at_once_and_under_its_own_version() {
        let folder = folder("permit(principal, action, resource);");
        let before = asked(&folder, Action::GetInstance).unwrap();
        folder.replace(compiled("permit(principal == Principal::\"bob\", action, resource);"));
        assert!(asked(&folder, Action::GetInstance).is_err());
        assert_ne!(folder.version(), Some(before));
    }

    #[test]
    fn the_time_before_1970_is_rounded_as_any_other() {
        let folder = folder(
            "permit(principal, action, resource) when { context.time == datetime(\"1969-12-31T23:59:59.999Z\") };",
        );
        assert!(asked(&folder, Action::GetInstance).is_ok());
    }
}
