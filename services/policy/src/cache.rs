//! Remembers decisions.
//!
//! The key is everything that a decision is made of: what a request holds, less what
//! no policy of the account looks at. A cache belongs to one version of the policies
//! and goes with it, so that a reload cannot leave an old answer behind.

use std::net::IpAddr;
use std::sync::Arc;

use quick_cache::Equivalent;
use quick_cache::sync::Cache;

use crate::{AccessRequest, Action, Decision};

/// Most decisions that are remembered: about 8 MB with names of usual length.
const CAPACITY: usize = 16_384;

#[derive(Debug)]
pub(crate) struct DecisionCache(Cache<CacheKey, Arc<Decision>>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct CacheKey {
    principal: Box<str>,
    account_id: Box<str>,
    operator: bool,
    action: Action,
    resource: [Box<str>; 3],
    source_ip: Option<IpAddr>,
}

/// A key that borrows. It MUST have the fields of [`CacheKey`] in the same order: the two
/// have to hash alike.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct KeyRef<'a> {
    principal: &'a str,
    account_id: &'a str,
    operator: bool,
    action: Action,
    resource: [&'a str; 3],
    source_ip: Option<IpAddr>,
}

impl<'a> KeyRef<'a> {
    /// The key of a request whose time nothing looks at. `source_ip` is that of the
    /// request where something looks at it.
    pub(crate) const fn new(request: &AccessRequest<'a>, source_ip: Option<IpAddr>) -> Self {
        let resource = request.resource;
        Self {
            principal: request.principal,
            account_id: request.account_id,
            operator: request.operator,
            action: request.action,
            resource: [resource.region_id, resource.account_id, resource.instance_id],
            source_ip,
        }
    }
}

impl From<KeyRef<'_>> for CacheKey {
    fn from(key: KeyRef<'_>) -> Self {
        let KeyRef { principal, account_id, operator, action, resource, source_ip } = key;
        let resource = resource.map(Box::from);
        Self {
            principal: principal.into(),
            account_id: account_id.into(),
            operator,
            action,
            resource,
            source_ip,
        }
    }
}

impl Equivalent<CacheKey> for KeyRef<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.action == key.action
            && self.operator == key.operator
            && self.source_ip == key.source_ip
            && *self.principal == *key.principal
            && *self.account_id == *key.account_id
            && self.resource.iter().zip(&key.resource).all(|(mine, its)| **mine == **its)
    }
}

impl Default for DecisionCache {
    fn default() -> Self {
        Self(Cache::new(CAPACITY))
    }
}

impl DecisionCache {
    /// The decision remembered, else the one that `decide` makes.
    pub(crate) fn get_or(&self, key: KeyRef<'_>, decide: impl FnOnce() -> Decision) -> Arc<Decision> {
        if let Some(known) = self.0.get(&key) {
            return known;
        }
        let decision = Arc::new(decide());
        self.0.insert(CacheKey::from(key), Arc::clone(&decision));
        decision
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;

    fn decision(name: &str) -> Decision {
        Decision { allowed: true, policies: vec![name.to_owned()], failures: Vec::new() }
    }

    #[test]
    fn each_part_of_a_request_tells_it_from_others() {
        let resource = Resource { region_id: "r", account_id: "a", instance_id: "i" };
        let base = AccessRequest {
            principal: "p",
            account_id: "a",
            operator: false,
            action: Action::GetInstance,
            resource,
            source_ip: None,
            time_ms: 0,
        };
        let keys = [
            KeyRef::new(&base, None),
            KeyRef::new(&base, Some([10, 0, 0, 1].into())),
            KeyRef::new(&AccessRequest { principal: "q", ..base }, None),
            KeyRef::new(&AccessRequest { account_id: "b", ..base }, None),
            KeyRef::new(&AccessRequest { operator: true, ..base }, None),
            KeyRef::new(&AccessRequest { action: Action::UpdateInstance, ..base }, None),
            KeyRef::new(&AccessRequest { resource: Resource { region_id: "i", ..resource }, ..base }, None),
            KeyRef::new(&AccessRequest { resource: Resource { account_id: "i", ..resource }, ..base }, None),
            KeyRef::new(&AccessRequest { resource: Resource { instance_id: "r", ..resource }, ..base }, None),
        ];
        let cache = DecisionCache::default();
        for (index, key) in keys.iter().enumerate() {
            let made = cache.get_or(*key, || decision(&index.to_string()));
            assert_eq!(made.policies, [index.to_string()]);
        }
        for (index, key) in keys.iter().enumerate() {
            let known = cache.get_or(*key, || unreachable!("{index} was forgotten"));
            assert_eq!(known.policies, [index.to_string()]);
        }
    }

    #[test]
    fn it_is_bounded() {
        let cache = DecisionCache::default();
        for n in 0..3 * CAPACITY {
            let principal = n.to_string();
            let resource = Resource { region_id: "r", account_id: "a", instance_id: "i" };
            let request = AccessRequest {
                principal: &principal,
                account_id: "a",
                operator: false,
                action: Action::GetInstance,
                resource,
                source_ip: None,
                time_ms: 0,
            };
            cache.get_or(KeyRef::new(&request, None), Decision::default_deny);
        }
        assert!((CAPACITY / 2..=CAPACITY).contains(&cache.len()), "{}", cache.len());
    }
}
