//! All policies of one bundle, by account.

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{PolicySet, ValidationMode, Validator};

use crate::account::AccountPolicies;
use crate::cache::{DecisionCache, KeyRef};
use crate::folder::{Language, PolicyBundle, PolicyFile};
use crate::problem::{PolicyProblems, Problem, accept};
use crate::{AccessRequest, Decision, cedar_file, ram, schema};

/// What everybody may do, as one bundle says it. Immutable: a reload makes another one.
#[derive(Debug)]
pub struct Policies {
    version: String,
    accounts: HashMap<String, AccountPolicies>,
    cache: DecisionCache,
}

impl Policies {
    /// Reads, compiles and validates every file.
    ///
    /// # Errors
    /// [`PolicyProblems`] with every problem that was found, by file and line.
    pub fn compile(bundle: &PolicyBundle) -> Result<Self, PolicyProblems> {
        let schema = schema::parsed()
            .map_err(|error| PolicyProblems(vec![Problem::new("schema.cedarschema", 0, error)]))?;
        let validator = Validator::new(schema);
        let mut accounts = HashMap::new();
        let mut problems = Vec::new();
        for files in bundle.files().chunk_by(|one, next| one.account_id == next.account_id) {
            let account = compile_account(files, &validator, &mut problems);
            accounts.insert(files[0].account_id.clone(), account);
        }
        let version = bundle.version().to_owned();
        accept(Self { version, accounts, cache: DecisionCache::default() }, problems)
    }

    /// The version of the bundle, to be recorded with what is allowed.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Decides a request by the policies of its principal's account. One and the same
    /// request gets one and the same answer, remembered or not.
    ///
    /// An answer is remembered unless a policy of the account looks at the time. The source
    /// address is part of the key only where a policy looks at it.
    #[must_use]
    pub fn decide(&self, request: &AccessRequest<'_>) -> Arc<Decision> {
        let Some(account) = self.accounts.get(request.account_id) else {
            return Arc::new(Decision::default_deny());
        };
        let dependence = account.dependence();
        let source_ip = request.source_ip.filter(|_| dependence.source_ip).map(|ip| ip.to_canonical());
        if dependence.time {
            return Arc::new(account.decide(request, source_ip));
        }
        self.cache.get_or(KeyRef::new(request, source_ip), || account.decide(request, source_ip))
    }

    /// As [`Policies::decide`], without looking for a remembered answer or leaving one.
    #[must_use]
    pub fn decide_anew(&self, request: &AccessRequest<'_>) -> Decision {
        let source_ip = request.source_ip.map(|ip| ip.to_canonical());
        self.accounts
            .get(request.account_id)
            .map_or_else(Decision::default_deny, |account| account.decide(request, source_ip))
    }

    /// The accounts that have policies, with their number, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<(&str, usize)> {
        let mut accounts: Vec<_> = self
            .accounts
            .iter()
            .map(|(id, account)| (id.as_str(), account.set().num_of_policies()))
            .collect();
        accounts.sort_unstable();
        accounts
    }
}

fn compile_account(
    files: &[PolicyFile],
    validator: &Validator,
    problems: &mut Vec<Problem>,
) -> AccountPolicies {
    let mut set = PolicySet::new();
    for file in files {
        let policies = match file.language {
            Language::Cedar => cedar_file::parse(file, problems),
            Language::Ram => ram::compile(file, problems),
        };
        for policy in policies {
            let place = policy.id().to_string();
            if let Err(error) = set.add(policy) {
                problems.push(Problem::new(&file.path, 0, format!("{place}: {error}")));
            }
        }
    }
    let validated = validator.validate(&set, ValidationMode::Strict);
    problems.extend(cedar_file::misfits(files, &validated));
    AccountPolicies::new(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Resource};

    const OWN: Resource<'static> = Resource { region_id: "r", account_id: "1", instance_id: "fleet-a" };

    fn policies(files: &[(&str, &str)]) -> Policies {
        let files = files.iter().map(|(path, text)| {
            let (account, name) = path.split_once('/').unwrap();
            PolicyFile::new(account, name, (*text).to_owned()).unwrap()
        });
        Policies::compile(&PolicyBundle::new(files.collect())).unwrap_or_else(|refused| panic!("{refused}"))
    }

    fn asked(principal: &'static str, action: Action) -> AccessRequest<'static> {
        AccessRequest {
            principal,
            account_id: "1",
            operator: false,
            action,
            resource: OWN,
            source_ip: None,
            time_ms: 0,
        }
    }

    #[test]
    fn nothing_is_allowed_by_default_and_a_denial_wins() {
        let policies = policies(&[
            ("1/ops.cedar", "permit(principal, action, resource);"),
            (
                "1/freeze.cedar",
                "// No inactivation in December.\n\n@id(\"freeze\")\nforbid(principal, action == \
                 Action::\"mq:UnregisterCaCertificate\", resource);",
            ),
            ("2/none.cedar", "forbid(principal, action, resource);"),
        ]);
        let decided = |request: &AccessRequest<'_>| policies.decide(request).to_string();
        let request = asked("alice", Action::GetInstance);
        assert_eq!(decided(&request), "allowed by 1/ops.cedar:1");
        assert_eq!(
            decided(&asked("alice", Action::UnregisterCaCertificate)),
            "denied by 1/freeze.cedar:3 (freeze)"
        );
        assert_eq!(decided(&AccessRequest { account_id: "2", ..request }), "denied by 2/none.cedar:1");
        assert_eq!(decided(&AccessRequest { account_id: "3", ..request }), "no policy allows it");
    }

    #[test]
    fn the_set_of_the_callers_account_decides_and_no_other() {
        let policies = policies(&[
            (
                "1/a.cedar",
                "permit(principal, action, resource) when { resource.account == principal.account };",
            ),
            ("2/a.cedar", "permit(principal == Principal::\"bob\", action, resource);"),
        ]);
        let allowed = |principal, account_id, owner| {
            let resource = Resource { account_id: owner, ..OWN };
            let request = AccessRequest { account_id, resource, ..asked(principal, Action::GetInstance) };
            policies.decide(&request).allowed
        };
        assert!(allowed("alice", "1", "1") && !allowed("alice", "1", "2"));
        assert!(allowed("bob", "2", "1") && !allowed("alice", "2", "2"));
    }

    #[test]
    fn a_single_character_wildcard_is_membership() {
        let policies = policies(&[(
            "1/a.cedar",
            "permit(principal in PrincipalPattern::\"broker-?\", action, resource in \
             ResourcePattern::\"acs:mq:*:1:fleet-?\");",
        )]);
        let allowed = |principal, instance_id| {
            let resource = Resource { instance_id, ..OWN };
            policies.decide(&AccessRequest { resource, ..asked(principal, Action::WatchTrust) }).allowed
        };
        assert!(allowed("broker-1", "fleet-a"));
        assert!(!allowed("broker-12", "fleet-a") && !allowed("broker-1", "fleet-ab"));
    }

    #[test]
    fn a_denial_that_cannot_be_evaluated_refuses() {
        let policies = policies(&[(
            "1/a.cedar",
            "permit(principal, action, resource);\nforbid(principal == Principal::\"alice\", action, resource)\n\
             when { 9223372036854775807 + (if context.operator then 1 else 0) == 0 };",
        )]);
        assert!(policies.decide(&asked("bob", Action::GetInstance)).allowed);
        let request = asked("alice", Action::GetInstance);
        assert!(policies.decide(&request).allowed);
        let decision = policies.decide(&AccessRequest { operator: true, ..request });
        assert!(!decision.allowed);
        assert!(
            decision
                .to_string()
                .starts_with("cannot be evaluated: error while evaluating policy `1/a.cedar:2`"),
            "{decision}"
        );
    }

    #[test]
    fn a_decision_is_not_remembered_over_another_address_or_time() {
        let policies = policies(&[
            (
                "1/a.cedar",
                "permit(principal, action, resource) when { context has source_ip && \
                 context.source_ip.isInRange(ip(\"10.0.0.0/8\")) };",
            ),
            (
                "2/a.cedar",
                "permit(principal, action, resource) when { context.time < datetime(\"1970-01-01T00:00:01Z\") };",
            ),
            ("3/a.cedar", "permit(principal, action, resource);"),
        ]);
        let request = asked("alice", Action::GetInstance);
        let from = |ip: &str| AccessRequest { source_ip: Some(ip.parse().unwrap()), ..request };
        for _ in 0..2 {
            assert!(policies.decide(&from("10.1.2.3")).allowed);
            assert!(policies.decide(&from("::ffff:10.1.2.3")).allowed, "an IPv4-mapped IPv6 address");
            assert!(!policies.decide(&from("11.1.2.3")).allowed);
            assert!(!policies.decide(&request).allowed);
        }
        assert_eq!(policies.cache.len(), 3);
        for (time_ms, allowed) in [(999, true), (1_000, false), (0, true)] {
            assert_eq!(
                policies.decide(&AccessRequest { account_id: "2", time_ms, ..request }).allowed,
                allowed
            );
        }
        assert_eq!(policies.cache.len(), 3, "what depends on the time is not remembered");
        for (index, ip) in ["10.1.2.3", "11.1.2.3"].into_iter().enumerate() {
            let time_ms = i64::try_from(index).unwrap();
            assert!(policies.decide(&AccessRequest { account_id: "3", time_ms, ..from(ip) }).allowed);
        }
        assert_eq!(policies.cache.len(), 4, "one entry for every address and time");
    }

    #[test]
    fn the_accounts_are_counted() {
        let policies = policies(&[
            ("2/a.cedar", "permit(principal, action, resource);\nforbid(principal, action, resource);"),
            (
                "1/b.json",
                r#"{"Version": "1", "Principal": "*", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}"#,
            ),
        ]);
        assert_eq!(policies.accounts(), [("1", 1), ("2", 2)]);
        assert!(policies.version().starts_with("policies-"));
    }
}
