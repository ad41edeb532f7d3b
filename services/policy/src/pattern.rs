//! Patterns of names: `*` stands for any run of characters, `?` for any one.

/// Segments of a resource: `acs:mq:REGION:ACCOUNT:INSTANCE`.
const SEGMENTS: usize = 5;

/// Longest pattern, in bytes.
const LONGEST: usize = 512;

/// Whether the pattern stands for the whole of `text`. Case matters.
///
/// On a mismatch only the last `*` is widened: what the ones before it took can be
/// left as it is, so that the time is at most the product of the lengths.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    let mut last_star = None;
    loop {
        let here = text.clone();
        match (pattern.next(), text.next()) {
            (Some('*'), _) => {
                text = here;
                last_star = Some((pattern.clone(), text.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(expected), Some(found)) if expected == found => {}
            (None, None) => return true,
            _ => {
                let Some((after_star, taken)) = &mut last_star else { return false };
                if taken.next().is_none() {
                    return false;
                }
                (pattern, text) = (after_star.clone(), taken.clone());
            }
        }
    }
}

/// Checks a pattern of principals.
///
/// # Errors
/// Why it can stand for nobody.
pub(crate) fn check_principal(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() || pattern.len() > LONGEST || pattern.chars().any(char::is_control) {
        return Err(format!("{pattern:?} must have 1 to {LONGEST} bytes, no control characters among them"));
    }
    Ok(())
}

/// Checks a pattern of instances. With all its colons in place a wildcard cannot reach
/// over one: as many stand in every name, and each takes its own.
///
/// # Errors
/// Why it can stand for no instance.
pub(crate) fn check_resource(pattern: &str) -> Result<(), String> {
    if pattern == "*" {
        return Ok(());
    }
    let segments: Vec<_> = pattern.split(':').collect();
    let permitted = |byte: u8| byte.is_ascii_alphanumeric() || b"_-*?".contains(&byte);
    let sound = segments.len() == SEGMENTS
        && pattern.len() <= LONGEST
        && segments.iter().all(|segment| !segment.is_empty() && segment.bytes().all(permitted))
        && matches(segments[0], "acs")
        && matches(segments[1], "mq");
    if sound {
        return Ok(());
    }
    Err(format!(
        "{pattern:?} stands for no instance: write acs:mq:REGION:ACCOUNT:INSTANCE, where `*` and `?` stay \
         inside their segment, or `*` for every instance"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_runs_and_single_characters() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("?", "", false),
            ("?", "é", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("ab*ba", "aba", false),
            ("*?", "x", true),
            ("?*?", "x", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?c", "abbc", false),
            ("mq:Get*", "mq:get", false),
            ("**", "anything", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let (pattern, text) = ("*a".repeat(200) + "b", "a".repeat(2_000));
        assert!(!matches(&pattern, &text));
    }

    #[test]
    fn a_resource_pattern_has_its_segments() {
        for good in ["*", "acs:mq:*:*:*", "acs:m?:cn-hangzhou:1234:fleet-?", "*:*:*:*:*"] {
            assert_eq!(check_resource(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "**",
            "acs:mq:*",
            "acs:oss:*:*:*",
            "acs:mq:*:1234:fleet%topic",
            "acs:mq::1:x",
            "acs:mq:*:1:a:b",
        ] {
            assert!(check_resource(bad).is_err(), "{bad}");
        }
    }
}
