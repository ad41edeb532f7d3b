//! What one decision costs with the policies of 1,000 accounts loaded, remembered and not,
//! next to the bare call of Cedar on the same set and on one set for everybody.
//!
//! `cargo run --release -p catrust-policy --example decision_figures`

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::time::Instant;

use catrust_policy::{AccessRequest, Action, Policies, PolicyBundle, PolicyFile, Resource};
use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
};

const ACCOUNTS: usize = 1_000;
/// Policies of each account, half of them Cedar, half of them RAM statements.
const POLICIES: usize = 10;

fn cedar(account: usize) -> String {
    let policy = |n: usize| {
        format!(
            "permit(principal == Principal::\"user-{n}\", action in [Action::\"mq:UnregisterCaCertificate\", \
             Action::\"mq:MqttInstanceAccess\"], resource) when {{ resource.arn like \"acs:mq:*:{account}:fleet-*\" }};\n"
        )
    };
    (0..POLICIES / 2).map(policy).collect()
}

fn ram(account: usize) -> String {
    let statement = |n: usize| {
        let effect = if n == 0 { "Deny" } else { "Allow" };
        format!(
            "{{\"Effect\": \"{effect}\", \"Action\": \"mq:Delete*\", \"Resource\": \"acs:mq:*:{account}:fleet-{n}\"}}"
        )
    };
    let statements: Vec<_> = (0..POLICIES / 2).map(statement).collect();
    format!("{{\"Version\": \"1\", \"Principal\": \"user-*\", \"Statement\": [{}]}}", statements.join(","))
}

/// Nanoseconds of one round, over as many as fit in half a second.
fn nanoseconds(mut round: impl FnMut(usize)) -> f64 {
    let (mut rounds, started) = (0, Instant::now());
    while started.elapsed().as_millis() < 500 {
        for _ in 0..100 {
            round(rounds);
            rounds += 1;
        }
    }
    started.elapsed().as_nanos() as f64 / rounds as f64
}

fn uid(text: &str) -> EntityUid {
    text.parse().expect("an entity")
}

/// Cedar alone, request and entities made beforehand.
fn bare(set: &PolicySet) -> f64 {
    let texts = |pairs: &[(&str, &str)]| -> HashMap<_, _> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), RestrictedExpression::new_string((*v).to_owned())))
            .collect()
    };
    let (principal, instance) = (uid("Principal::\"user-3\""), uid("Instance::\"acs:mq:r:500:fleet-a\""));
    let who =
        Entity::new(principal.clone(), texts(&[("name", "user-3"), ("account", "500")]), HashSet::new());
    let arn = texts(&[
        ("arn", "acs:mq:r:500:fleet-a"),
        ("region", "r"),
        ("account", "500"),
        ("instance", "fleet-a"),
    ]);
    let what = Entity::new(instance.clone(), arn, HashSet::new());
    let entities = Entities::from_entities([who.expect("a principal"), what.expect("an instance")], None);
    let entities = entities.expect("two entities");
    let action = uid("Action::\"mq:UnregisterCaCertificate\"");
    let request = Request::new(principal, action, instance, Context::empty(), None).expect("a request");
    let authorizer = Authorizer::new();
    nanoseconds(|_| {
        black_box(authorizer.is_authorized(black_box(&request), set, &entities));
    })
}

fn main() {
    let names: Vec<String> = (0..ACCOUNTS).map(|account| account.to_string()).collect();
    let files = names.iter().enumerate().flat_map(|(account, name)| {
        [("a.cedar", cedar(account)), ("b.json", ram(account))]
            .map(|(file, text)| PolicyFile::new(name, file, text))
    });
    let bundle = PolicyBundle::new(files.flatten().collect());
    let started = Instant::now();
    let policies = Policies::compile(&bundle).unwrap_or_else(|refused| panic!("{refused}"));
    println!("compile {ACCOUNTS} accounts of {POLICIES} policies: {} ms", started.elapsed().as_millis());

    let request = |account: usize| AccessRequest {
        principal: "user-3",
        account_id: &names[account % ACCOUNTS],
        operator: false,
        action: Action::UnregisterCaCertificate,
        resource: Resource { region_id: "r", account_id: &names[account % ACCOUNTS], instance_id: "fleet-a" },
        source_ip: Some([10, 0, 0, 1].into()),
        time_ms: 1_800_000_000_000,
    };
    assert!((0..ACCOUNTS).all(|account| policies.decide(&request(account)).allowed), "everybody is allowed");
    let cached = nanoseconds(|round| {
        black_box(policies.decide(&request(round)));
    });
    let anew = nanoseconds(|round| {
        black_box(policies.decide_anew(&request(round)));
    });
    let own = bare(&cedar(500).parse().expect("policies"));
    let everybody: String = (0..ACCOUNTS).map(cedar).collect();
    let shared = bare(&everybody.parse().expect("policies"));
    println!("decision remembered:                  {cached:>10.0} ns");
    println!("decision made anew:                   {anew:>10.0} ns");
    println!("bare Cedar, 5 policies:               {own:>10.0} ns");
    println!("bare Cedar, one set of {} policies: {shared:>10.0} ns", ACCOUNTS * POLICIES / 2);
}
