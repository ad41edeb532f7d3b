//! The conditions of a statement, as Cedar expressions (JSON format).

use std::net::IpAddr;

use chrono::{DateTime, Timelike as _};
use serde_json::{Value, json};

use super::document::{Effect, Pairs, Texts};
use crate::account::spelled;

const SOURCE_IP: &str = "acs:SourceIp";
const CURRENT_TIME: &str = "acs:CurrentTime";

/// One expression for each operator; all of them have to hold.
///
/// # Errors
/// Every operator, key and value that is not known or not well formed.
pub(super) fn expressions(
    effect: Effect,
    conditions: &Pairs<Pairs<Texts>>,
) -> Result<Vec<Value>, Vec<String>> {
    let (mut expressions, mut problems) = (Vec::new(), Vec::new());
    for (operator, keys) in &conditions.0 {
        for (key, values) in &keys.0 {
            match expression(effect, operator, key, &values.0) {
                Ok(expression) => expressions.push(expression),
                Err(problem) => problems.push(format!("Condition: {operator}: {problem}")),
            }
        }
    }
    if problems.is_empty() { Ok(expressions) } else { Err(problems) }
}

fn expression(effect: Effect, operator: &str, key: &str, values: &[String]) -> Result<Value, String> {
    let expected = match operator {
        "IpAddress" | "NotIpAddress" => SOURCE_IP,
        "DateLessThan" | "DateLessThanEquals" | "DateGreaterThan" | "DateGreaterThanEquals" => CURRENT_TIME,
        _ => {
            return Err(
                "is not known; there are IpAddress, NotIpAddress, DateLessThan, DateLessThanEquals, \
                        DateGreaterThan and DateGreaterThanEquals"
                    .to_owned(),
            );
        }
    };
    if key != expected {
        return Err(format!("knows no key `{key}`, only {expected}"));
    }
    let date = |comparison: &str| any(values, |value| Ok(compared(comparison, &time(value)?)));
    match operator {
        "IpAddress" => Ok(where_address_known(effect, any(values, in_network)?)),
        "NotIpAddress" => Ok(where_address_known(effect, json!({"!": {"arg": any(values, in_network)?}}))),
        "DateLessThan" => date("<"),
        "DateLessThanEquals" => date("<="),
        "DateGreaterThan" => date(">"),
        _ => date(">="),
    }
}

/// Where the address is not known, an allowance does not apply and a denial does.
fn where_address_known(effect: Effect, holds: Value) -> Value {
    json!({"if-then-else": {
        "if": {"has": {"left": {"Var": "context"}, "attr": "source_ip"}},
        "then": holds,
        "else": {"Value": effect == Effect::Deny},
    }})
}

fn of_context(attribute: &str) -> Value {
    json!({".": {"left": {"Var": "context"}, "attr": attribute}})
}

fn in_network(text: &str) -> Result<Value, String> {
    Ok(json!({"isInRange": [of_context("source_ip"), {"ip": [{"Value": network(text)?}]}]}))
}

fn compared(comparison: &str, time: &str) -> Value {
    json!({comparison: {"left": of_context("time"), "right": {"datetime": [{"Value": time}]}}})
}

/// An address, or `ADDRESS/BITS` with the bits behind the network's set to 0.
fn network(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is no address and no network such as 10.0.0.0/8 or 2001:db8::/32");
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) && bits.len() <= 3 => {
            (address, Some(bits.parse::<u32>().map_err(|_| bad())?))
        }
        Some(_) => return Err(bad()),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| bad())?;
    if address.to_canonical() != address {
        return Err(format!("{text:?} is an IPv4-mapped IPv6 address: write it as IPv4"));
    }
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    if bits > width {
        return Err(bad());
    }
    // A shift by the whole width is none at all.
    let network = match address {
        IpAddr::V4(v4) => {
            IpAddr::from((v4.to_bits() & u32::MAX.checked_shl(width - bits).unwrap_or(0)).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            IpAddr::from((v6.to_bits() & u128::MAX.checked_shl(width - bits).unwrap_or(0)).to_be_bytes())
        }
    };
    Ok(format!("{network}/{bits}"))
}

/// A time of ISO 8601 with its zone, to the millisecond, as Cedar spells it.
fn time(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is no time such as 2026-11-24T23:59:59Z or 2026-11-24T23:59:59+08:00");
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| bad())?;
    if time.nanosecond() % 1_000_000 != 0 {
        return Err(format!("{text:?} is finer than milliseconds"));
    }
    spelled(time.timestamp_millis()).map_err(|_| bad())
}

/// The expressions of the values, one of which has to hold.
fn any(values: &[String], expression: impl Fn(&str) -> Result<Value, String>) -> Result<Value, String> {
    let expressions: Vec<Value> = values.iter().map(|value| expression(value)).collect::<Result<_, _>>()?;
    Ok(super::compile::or(&expressions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_masked_and_spelled_in_one_way() {
        for (text, expected) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(network(text).as_deref(), Ok(expected));
        }
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::ffff:10.0.0.1",
            "010.0.0.1",
            "10.0.0.0/8/8",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_spelled_in_one_way() {
        assert_eq!(time("2026-11-24T23:59:59+08:00").as_deref(), Ok("2026-11-24T15:59:59.000Z"));
        assert_eq!(time("2026-11-24T23:59:59.5Z").as_deref(), Ok("2026-11-24T23:59:59.500Z"));
        for text in
            ["", "2026-11-24", "2026-11-24T23:59:59", "2026-13-01T00:00:00Z", "2026-11-24T23:59:59.0001Z"]
        {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
