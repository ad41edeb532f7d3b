//! Random RAM documents, and questions close enough to them that both answers are common.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use catrust_policy::Action;
use chrono::{DateTime, SecondsFormat};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::reference::Question;

/// Moments around which everything happens.
const NOON: i64 = 1_795_000_000_000;

/// Actions, few enough to meet.
const ACTIONS: [Action; 5] = [
    Action::GetInstance,
    Action::GetCaCertificate,
    Action::UnregisterCaCertificate,
    Action::MqttInstanceAccess,
    Action::RegisterInstance,
];

pub fn questions() -> impl Strategy<Value = Vec<Question>> {
    let one =
        (principal(), select(&ACTIONS[..]), resource(), option::weighted(0.9, address()), NOON - 2..NOON + 3);
    let question = one.prop_map(|(principal, action, resource, source_ip, time_ms)| Question {
        principal,
        action: action.name(),
        resource,
        source_ip,
        time_ms,
    });
    vec(question, 12)
}

pub fn documents() -> impl Strategy<Value = Vec<Value>> {
    let document = (vec(principal_pattern(), 1..4), any::<bool>(), vec(statement(), 1..4));
    let document = document.prop_map(|(principals, list, statements)| {
        json!({"Version": "1", "Principal": one_or_many(&principals, list), "Statement": statements})
    });
    vec(document, 1..4)
}

fn statement() -> impl Strategy<Value = Value> {
    let effect = prop_oneof![3 => Just("Allow"), 1 => Just("Deny")];
    let conditions = (option::weighted(0.3, ip_condition()), option::weighted(0.3, date_condition()));
    let parts =
        (effect, vec(action_pattern(), 1..3), vec(resource_pattern(), 1..3), conditions, any::<bool>());
    parts.prop_map(|(effect, actions, resources, (ip, date), list)| {
        let mut statement = json!({
            "Effect": effect,
            "Action": one_or_many(&actions, list),
            "Resource": one_or_many(&resources, list),
        });
        let conditions: serde_json::Map<_, _> = ip.into_iter().chain(date.into_iter().flatten()).collect();
        if !conditions.is_empty() {
            statement["Condition"] = conditions.into();
        }
        statement
    })
}

fn one_or_many(texts: &[String], list: bool) -> Value {
    match texts {
        [one] if !list => json!(one),
        many => json!(many),
    }
}

/// Short names of two letters, so that wildcards have something to get wrong.
fn letters() -> impl Strategy<Value = String> {
    vec(select(vec!['a', 'b', '-']), 1..5).prop_map(String::from_iter)
}

fn principal() -> impl Strategy<Value = String> {
    prop_oneof![4 => letters(), 1 => select(vec!["spiffe://a/b", "é\"\\*", "CN=a:b, O=?"]).prop_map(str::to_owned)]
}

fn wild(letters: Vec<char>) -> impl Strategy<Value = String> {
    vec(select(letters), 1..6).prop_map(String::from_iter)
}

fn principal_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("*".to_owned()),
        4 => wild(vec!['a', 'b', '-', '*', '*', '?', '?']),
        2 => principal(),
        1 => select(vec!["spiffe:*b", "é?\\*", "*:*", "????"]).prop_map(str::to_owned),
    ]
}

fn resource() -> impl Strategy<Value = [String; 3]> {
    let region = select(vec!["ab", "b"]).prop_map(str::to_owned);
    let account = select(vec!["1", "12"]).prop_map(str::to_owned);
    let one =
        (region, account, letters()).prop_map(|(region, account, instance)| [region, account, instance]);
    prop_oneof![9 => one, 1 => Just(["*", "*", "*"].map(str::to_owned))]
}

fn resource_pattern() -> impl Strategy<Value = String> {
    let acs = select(vec!["acs", "acs", "a*", "*"]);
    let mq = select(vec!["mq", "mq", "m?", "*"]);
    let region = select(vec!["*", "ab", "?", "?b"]);
    let account = select(vec!["*", "1", "1?", "1*"]);
    let instance = prop_oneof![Just("*".to_owned()), wild(vec!['a', 'b', '-', '*', '?'])];
    let segments = (acs, mq, region, account, instance);
    let pattern = segments
        .prop_map(|(a, m, region, account, instance)| format!("{a}:{m}:{region}:{account}:{instance}"));
    prop_oneof![1 => Just("*".to_owned()), 5 => pattern]
}

fn action_pattern() -> impl Strategy<Value = String> {
    let pattern = select(vec!["*", "mq:*", "mq:Get*", "mq:*Instance*", "mq:?et*", "*CaCertificate", "??:R*"]);
    prop_oneof![
        pattern.prop_map(str::to_owned),
        select(&ACTIONS[..]).prop_map(|action| action.name().to_owned())
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0..4_u32).prop_map(|low| Ipv4Addr::from_bits(0x0a00_0000 | low << 7 | low));
    let v6 = (0..4_u128).prop_map(|low| Ipv6Addr::from_bits(0x2001_0db8 << 96 | low << 63 | low));
    prop_oneof![
        3 => v4.clone().prop_map(IpAddr::from),
        1 => v4.prop_map(|v4| v4.to_ipv6_mapped().into()),
        2 => v6.prop_map(IpAddr::from),
    ]
}

fn network() -> impl Strategy<Value = String> {
    (address(), option::of(0..=128_u32)).prop_map(|(address, bits)| {
        let address = address.to_canonical();
        let width = if address.is_ipv4() { 32 } else { 128 };
        // Close to the bits in which the addresses differ.
        let bits = bits.map(|bits| if width == 32 { bits % 33 } else { bits });
        bits.map_or_else(|| address.to_string(), |bits| format!("{address}/{bits}"))
    })
}

fn ip_condition() -> impl Strategy<Value = (String, Value)> {
    (select(vec!["IpAddress", "NotIpAddress"]), vec(network(), 1..3), any::<bool>()).prop_map(
        |(operator, networks, list)| {
            (operator.to_owned(), json!({"acs:SourceIp": one_or_many(&networks, list)}))
        },
    )
}

fn date_condition() -> impl Strategy<Value = Vec<(String, Value)>> {
    let operators = vec!["DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals"];
    let operators = proptest::sample::subsequence(operators, 1..3);
    (operators, vec((NOON - 2..NOON + 3, any::<bool>()), 1..3), any::<bool>()).prop_map(
        |(operators, times, list)| {
            let times: Vec<String> = times.into_iter().map(|(time, east)| spelled(time, east)).collect();
            let keys = json!({"acs:CurrentTime": one_or_many(&times, list)});
            operators.into_iter().map(|operator| (operator.to_owned(), keys.clone())).collect()
        },
    )
}

fn spelled(time_ms: i64, east: bool) -> String {
    let time = DateTime::from_timestamp_millis(time_ms).unwrap();
    let zone = chrono::FixedOffset::east_opt(if east { 8 * 3600 } else { 0 }).unwrap();
    time.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Millis, true)
}
