//! Which circumstances of a call a policy looks at.
//!
//! What it does not look at is left out of the request that Cedar gets, so that a
//! remembered decision cannot depend on it. Were this reading wrong, the missing
//! value would fail the evaluation, and a failure refuses.

use std::ops::BitOr;

use cedar_policy::Policy;
use serde_json::Value;

/// The circumstances that policies look at, apart from the operator flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dependence {
    /// The address that the call comes from.
    pub source_ip: bool,
    /// The time of the call.
    pub time: bool,
}

impl Dependence {
    const NOTHING: Self = Self { source_ip: false, time: false };
    const EVERYTHING: Self = Self { source_ip: true, time: true };

    /// Reads it off the policy's syntax tree (Cedar's JSON format).
    pub(crate) fn of(policy: &Policy) -> Self {
        policy.to_json().map_or(Self::EVERYTHING, |tree| Self::of_tree(&tree))
    }

    fn of_tree(tree: &Value) -> Self {
        match tree {
            Value::Object(nodes) => nodes
                .iter()
                .fold(Self::NOTHING, |known, (operator, operand)| known | Self::of_node(operator, operand)),
            Value::Array(trees) => {
                trees.iter().fold(Self::NOTHING, |known, tree| known | Self::of_tree(tree))
            }
            _ => Self::NOTHING,
        }
    }

    /// `context.x` and `context has x` look at x; the context in any other place may be
    /// looked at as a whole.
    fn of_node(operator: &str, operand: &Value) -> Self {
        let of_context = operand.get("left").is_some_and(|left| left["Var"] == "context");
        match (operator, operand) {
            ("." | "has", _) if of_context => match operand["attr"].as_str() {
                Some("source_ip") => Self { source_ip: true, ..Self::NOTHING },
                Some("time") => Self { time: true, ..Self::NOTHING },
                Some("operator") => Self::NOTHING,
                _ => Self::EVERYTHING,
            },
            ("Var", Value::String(name)) if name == "context" => Self::EVERYTHING,
            _ => Self::of_tree(operand),
        }
    }
}

impl BitOr for Dependence {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { source_ip: self.source_ip || other.source_ip, time: self.time || other.time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn dependence(condition: &str) -> Dependence {
        let text = format!("permit(principal, action, resource) when {{ {condition} }};");
        Dependence::of(&text.parse().unwrap())
    }

    #[test]
    fn a_policy_depends_on_what_it_looks_at() {
        assert_eq!(dependence("principal.name like \"context.time\""), Dependence::NOTHING);
        assert_eq!(dependence("context.operator"), Dependence::NOTHING);
        assert_eq!(
            dependence("context has source_ip && context.source_ip.isLoopback()"),
            Dependence { source_ip: true, time: false }
        );
        assert_eq!(
            dependence("!(resource.arn == \"x\" || context.time < datetime(\"2026-01-01\"))"),
            Dependence { source_ip: false, time: true }
        );
        assert!(!dependence("context[\"time\"] == context.time").source_ip);
    }

    #[test]
    fn a_context_looked_at_as_a_whole_is_everything() {
        for condition in [
            "context == context",
            "[context].contains(context)",
            "{a: context}.a.operator",
            "(if true then context else context).operator",
        ] {
            assert_eq!(dependence(condition), Dependence::EVERYTHING, "{condition}");
        }
    }
}
