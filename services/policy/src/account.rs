//! The policies of one account: one Cedar policy set, because the cost of a decision
//! grows with the number of policies in the set.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use cedar_policy::{
    Authorizer, Context, Decision as Verdict, Entities, Entity, EntityUid, Policy, PolicySet, Request,
    RestrictedExpression,
};
use chrono::{DateTime, SecondsFormat};

use crate::dependence::Dependence;
use crate::schema::{self, EntityKind};
use crate::{AccessRequest, Decision, pattern};

/// What the callers of one account may do.
#[derive(Debug, Default)]
pub(crate) struct AccountPolicies {
    set: PolicySet,
    dependence: Dependence,
    principal_patterns: Patterns,
    resource_patterns: Patterns,
}

impl AccountPolicies {
    /// Takes validated policies. Their ids are what decisions name.
    pub(crate) fn new(set: PolicySet) -> Self {
        let mut account = Self::default();
        for policy in set.policies() {
            account.dependence = account.dependence | Dependence::of(policy);
            account.principal_patterns.note(policy, EntityKind::PrincipalPattern);
            account.resource_patterns.note(policy, EntityKind::ResourcePattern);
        }
        Self { set, ..account }
    }

    pub(crate) const fn dependence(&self) -> Dependence {
        self.dependence
    }

    pub(crate) fn set(&self) -> &PolicySet {
        &self.set
    }

    /// Asks Cedar. `source_ip` and the time of the request reach it only where a policy
    /// looks at them.
    pub(crate) fn decide(&self, request: &AccessRequest<'_>, source_ip: Option<IpAddr>) -> Decision {
        let arn = request.resource.to_string();
        let asked = self.entities(request, &arn).and_then(|entities| {
            let principal = EntityKind::Principal.entity(request.principal);
            let action = schema::action(request.action);
            let context = self.context(request, source_ip)?;
            let asked = Request::new(principal, action, EntityKind::Instance.entity(&arn), context, None);
            Ok((asked.map_err(|error| error.to_string())?, entities))
        });
        let (asked, entities) = match asked {
            Ok(asked) => asked,
            Err(failure) => return Decision::failed(failure),
        };
        let answer = Authorizer::new().is_authorized(&asked, &self.set, &entities);
        let diagnostics = answer.diagnostics();
        let mut policies: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        policies.sort();
        let failures: Vec<String> = diagnostics.errors().map(ToString::to_string).collect();
        let allowed = answer.decision() == Verdict::Allow && failures.is_empty();
        Decision { allowed, policies, failures }
    }

    fn entities(&self, request: &AccessRequest<'_>, arn: &str) -> Result<Entities, String> {
        let text =
            |name: &str, value: &str| (name.to_owned(), RestrictedExpression::new_string(value.to_owned()));
        let entity = |uid, attributes, parents| {
            Entity::new(uid, attributes, parents).map_err(|error| error.to_string())
        };
        let principal = entity(
            EntityKind::Principal.entity(request.principal),
            HashMap::from([text("name", request.principal), text("account", request.account_id)]),
            self.principal_patterns.that_match(request.principal),
        )?;
        let resource = request.resource;
        let instance = entity(
            EntityKind::Instance.entity(arn),
            HashMap::from([
                text("arn", arn),
                text("region", resource.region_id),
                text("account", resource.account_id),
                text("instance", resource.instance_id),
            ]),
            self.resource_patterns.that_match(arn),
        )?;
        Entities::from_entities([principal, instance], None).map_err(|error| error.to_string())
    }

    fn context(&self, request: &AccessRequest<'_>, source_ip: Option<IpAddr>) -> Result<Context, String> {
        let mut pairs = vec![("operator".to_owned(), RestrictedExpression::new_bool(request.operator))];
        if self.dependence.time {
            pairs.push(("time".to_owned(), RestrictedExpression::new_datetime(spelled(request.time_ms)?)));
        }
        if let Some(address) = source_ip.filter(|_| self.dependence.source_ip) {
            pairs.push(("source_ip".to_owned(), RestrictedExpression::new_ip(address.to_string())));
        }
        Context::from_pairs(pairs).map_err(|error| error.to_string())
    }
}

/// The time as Cedar spells it.
///
/// # Errors
/// It is outside of the years 0 to 9999.
pub(crate) fn spelled(time_ms: i64) -> Result<String, String> {
    let time = DateTime::from_timestamp_millis(time_ms)
        .filter(|time| (0..=9999).contains(&chrono::Datelike::year(time)));
    let time = time.ok_or_else(|| format!("{time_ms} ms is no time of the years 0 to 9999"))?;
    Ok(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The patterns with `?` that policies name. Cedar's `like` knows only `*`; so a name is a
/// member of the patterns that it matches, and Cedar asks for membership.
#[derive(Debug, Default)]
struct Patterns(Vec<(String, EntityUid)>);

impl Patterns {
    fn note(&mut self, policy: &Policy, kind: EntityKind) {
        for uid in policy.entity_literals() {
            if uid.type_name().basename() == kind.name() && !self.0.iter().any(|(_, known)| *known == uid) {
                self.0.push((uid.id().unescaped().to_owned(), uid));
            }
        }
    }

    fn that_match(&self, name: &str) -> HashSet<EntityUid> {
        self.0
            .iter()
            .filter(|(pattern, _)| pattern::matches(pattern, name))
            .map(|(_, uid)| uid.clone())
            .collect()
    }
}
