//! How deep a Cedar policy can be, told from its text, before a parser recurses into it.
//!
//! Cedar parses, checks, evaluates and frees expressions by recursion. Past a few thousand
//! levels that is the end of the process, and past a few hundred the evaluation gives up,
//! depending on how much stack the caller has left. So the depth is bounded, generously for
//! anybody who writes policies by hand.

/// Most levels of one policy: brackets open at once, operators and dots.
pub(crate) const DEEPEST: usize = 256;

/// Where a policy goes too deep, as a byte offset.
///
/// Every operator of a policy counts as one level, as if they all stood in one chain: a
/// bound that can be counted without parsing.
pub(crate) fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut open, mut links) = (0_usize, 0_usize);
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let mut length = 1;
        match byte {
            b'"' => length = quoted(rest),
            b'/' if rest.starts_with(b"//") => length = line(rest),
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b';' => (open, links) = (0, 0),
            b'|' | b'&' if rest.get(1) == Some(byte) => (links, length) = (links + 1, 2),
            b'+' | b'-' | b'*' | b'.' | b'!' => links += 1,
            b'e' if rest.starts_with(b"else") => (links, length) = (links + 1, 4),
            _ => {}
        }
        if open + links > DEEPEST {
            return Some(at);
        }
        at += length;
    }
    None
}

/// Length of a text in quotes. One that is never closed is no token: the parser stops there.
fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return at,
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

fn line(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_and_brackets_are_bounded_for_each_policy() {
        for chain in ["true || ", "a && ", "1+", "a.", "if a then b else ", "(", "[", "{a:", "!", "-", "x*"] {
            let policy = |levels: usize| {
                format!("permit(principal, action, resource) when {{ {} }};", chain.repeat(levels))
            };
            assert_eq!(too_deep(&policy(DEEPEST - 2).repeat(3)), None, "{chain}");
            assert!(too_deep(&policy(DEEPEST + 1)).is_some(), "{chain}");
        }
    }

    #[test]
    fn texts_and_comments_count_nothing() {
        let policy = format!(
            "// {}\npermit() when {{ \"{}\" \"\\\"{}\" }};",
            "(".repeat(999),
            ".".repeat(999),
            "(".repeat(999)
        );
        assert_eq!(too_deep(&policy), None);
        assert_eq!(too_deep(&format!("\"{}", "(".repeat(999))), None);
        assert!(too_deep(&format!("\"\" {}", "(".repeat(999))).is_some());
        assert!(too_deep(&format!("// a\n{}", "(".repeat(999))).is_some());
    }
}
