//! RAM policy documents, evaluated straight from their meaning: no compiler, no Cedar, no
//! cache, and none of the product's code. Reads JSON as it comes and believes that it is
//! well formed.

use std::net::IpAddr;

use chrono::DateTime;
use serde_json::Value;

/// What is asked, in plain values.
#[derive(Clone, Debug)]
pub struct Question {
    pub principal: String,
    pub action: &'static str,
    pub resource: [String; 3],
    pub source_ip: Option<IpAddr>,
    pub time_ms: i64,
}

/// Whether the documents allow it: some statement does, and none denies.
pub fn allows(documents: &[Value], question: &Question) -> bool {
    let effects: Vec<&str> = documents
        .iter()
        .filter(|document| texts(&document["Principal"]).iter().any(|p| fits(p, &question.principal)))
        .flat_map(|document| document["Statement"].as_array().unwrap())
        .filter(|statement| applies(statement, question))
        .map(|statement| statement["Effect"].as_str().unwrap())
        .collect();
    effects.contains(&"Allow") && !effects.contains(&"Deny")
}

fn applies(statement: &Value, question: &Question) -> bool {
    let denies = statement["Effect"] == "Deny";
    texts(&statement["Action"]).iter().any(|action| fits(action, question.action))
        && texts(&statement["Resource"]).iter().any(|resource| names(resource, &question.resource))
        && conditions(statement)
            .into_iter()
            .all(|(operator, values)| holds(operator, &values, denies, question))
}

/// A wildcard stays in its segment of the resource's name; `*` alone is everything.
fn names(pattern: &str, resource: &[String; 3]) -> bool {
    let name = ["acs", "mq", &resource[0], &resource[1], &resource[2]];
    let segments: Vec<&str> = pattern.split(':').collect();
    pattern == "*"
        || (segments.len() == 5 && segments.iter().zip(name).all(|(segment, name)| fits(segment, name)))
}

fn holds(operator: &str, values: &[String], denies: bool, question: &Question) -> bool {
    let any = |test: &dyn Fn(&str) -> bool| values.iter().any(|value| test(value));
    let from = |ip: IpAddr| any(&|network| inside(network, ip));
    let compared = |test: fn(&i64, &i64) -> bool| any(&|value| test(&question.time_ms, &moment(value)));
    match (operator, question.source_ip) {
        // Nobody knows where the call comes from: what would deny does, what would allow does not.
        ("IpAddress" | "NotIpAddress", None) => denies,
        ("IpAddress", Some(ip)) => from(ip),
        ("NotIpAddress", Some(ip)) => !from(ip),
        ("DateLessThan", _) => compared(i64::lt),
        ("DateLessThanEquals", _) => compared(i64::le),
        ("DateGreaterThan", _) => compared(i64::gt),
        ("DateGreaterThanEquals", _) => compared(i64::ge),
        (other, _) => panic!("{other} is no operator"),
    }
}

/// Bit by bit. An IPv4 address lies in no IPv6 network; an IPv4-mapped IPv6 address counts
/// as IPv4.
fn inside(network: &str, ip: IpAddr) -> bool {
    let (address, bits) = network.split_once('/').unwrap_or((network, "128"));
    let (address, ip) = (bits_of(address.parse().unwrap()), bits_of(ip));
    let length = bits.parse::<usize>().unwrap().min(ip.len());
    address.len() == ip.len() && address[..length] == ip[..length]
}

fn bits_of(ip: IpAddr) -> Vec<bool> {
    let bytes = match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(v6.octets().to_vec(), |v4| v4.octets().to_vec()),
    };
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
}

fn moment(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

/// `*`: any run of characters, or none. `?`: one. Tries everything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut characters = pattern.chars();
    match characters.next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = characters.as_str();
            fits(rest, text)
                || text.chars().next().is_some_and(|first| fits(pattern, &text[first.len_utf8()..]))
        }
        Some(expected) => text.chars().next().is_some_and(|first| {
            (expected == '?' || expected == first) && fits(characters.as_str(), &text[first.len_utf8()..])
        }),
    }
}

fn conditions(statement: &Value) -> Vec<(&str, Vec<String>)> {
    let operators = statement.get("Condition").and_then(Value::as_object).into_iter().flatten();
    let keys = operators
        .flat_map(|(operator, keys)| keys.as_object().unwrap().values().map(move |v| (operator.as_str(), v)));
    keys.map(|(operator, values)| (operator, texts(values))).collect()
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        list => list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect(),
    }
}
