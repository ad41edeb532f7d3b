//! Patterns of actions (`mq:*`) and of resources (`acs:mq:*:1234567890:*`).

use std::fmt;
use std::str::FromStr;

/// Names parted by colons, in which `*` stands for any run of characters inside one
/// segment. It never reaches over a colon, so that a pattern says what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// The text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("may contain only A-Z, a-z, 0-9, '_', '-', '*' and ':', with no empty segment")]
pub struct InvalidPattern;

impl Pattern {
    /// Whether `name` is one of those that the pattern stands for. Case matters.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.segments() == segments(name) && self.0.split(':').zip(name.split(':')).all(|(p, n)| fits(p, n))
    }

    /// Number of segments.
    pub(crate) fn segments(&self) -> usize {
        segments(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let permitted = |byte: u8| byte.is_ascii_alphanumeric() || b"_-*".contains(&byte);
        let sound = |segment: &str| !segment.is_empty() && segment.bytes().all(permitted);
        if text.split(':').all(sound) { Ok(Self(text.to_owned())) } else { Err(InvalidPattern) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn segments(text: &str) -> usize {
    text.split(':').count()
}

/// Matches one segment: the first and last literal are anchored, those between are
/// taken at their first occurrence. Linear for each literal, no backtracking.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for literal in middle.split('*').filter(|literal| !literal.is_empty()) {
        match name.split_once(literal) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(name)
    }

    #[test]
    fn a_star_stays_inside_its_segment() {
        assert!(matches("mq:*", "mq:RegisterCa"));
        assert!(matches("acs:mq:*:1234:*", "acs:mq:cn-hangzhou:1234:fleet-a"));
        assert!(!matches("acs:mq:*:1234:*", "acs:mq:cn-hangzhou:5678:fleet-a"));
        assert!(!matches("acs:mq:*", "acs:mq:cn-hangzhou:1234:fleet-a"));
        assert!(!matches("*", "mq:RegisterCa"));
    }

    #[test]
    fn literals_are_anchored_at_both_ends() {
        assert!(matches("mq:Get*", "mq:GetInstance"));
        assert!(!matches("mq:Get*", "mq:TargetGet"));
        assert!(matches("mq:*Instance", "mq:GetInstance"));
        assert!(!matches("mq:*Instance", "mq:GetInstances"));
        assert!(matches("mq:L*Ca*te", "mq:ListCaCertificate"));
        assert!(!matches("mq:ab*ba", "mq:aba"), "the two literals may not share a character");
        assert!(matches("mq:a**b", "mq:ab"));
        assert!(!matches("mq:Get", "mq:get"));
    }

    #[test]
    fn what_cannot_name_anything_is_refused() {
        for text in ["", ":", "mq:", "mq::x", "mq:a b", "mq:a.b", "mq:é"] {
            assert_eq!(text.parse::<Pattern>(), Err(InvalidPattern), "{text:?}");
        }
    }
}
