//! Page tokens: where the next page starts, bound to the list that it belongs to.
//!
//! Lists run along positions of the log, which never change, so that a page starts
//! exactly after the last item of the one before, whatever happened in between.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::ApiError;

/// Longest token that is looked at, in bytes.
const MAX_TOKEN_LENGTH: usize = 512;

/// Makes the token of the page after `position`. `list` names the list and its filters.
pub(crate) fn token(list: &str, position: u64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{position}/{list}"))
}

/// The position after which the page starts; 0 for an empty token.
///
/// # Errors
/// The token was not made for this list.
pub(crate) fn position(list: &str, token: &str) -> Result<u64, ApiError> {
    if token.is_empty() {
        return Ok(0);
    }
    parse(list, token).ok_or_else(|| {
        ApiError::field(
            "page_token",
            "does not belong to this list; use next_page_token with the same request",
        )
    })
}

fn parse(list: &str, token: &str) -> Option<u64> {
    if token.len() > MAX_TOKEN_LENGTH {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (position, of_list) = text.split_once('/')?;
    if of_list != list {
        return None;
    }
    // i64 is what the databases hold.
    position.parse::<i64>().ok().and_then(|position| u64::try_from(position).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_its_own_list_only() {
        let made = token("certificates/i/ANY", 42);
        assert_eq!(position("certificates/i/ANY", &made).ok(), Some(42));
        assert!(position("certificates/i/ACTIVE", &made).is_err());
        for forged in ["x", "é", "NDI", &token("l", u64::MAX), &"A".repeat(600)] {
            assert!(position("l", forged).is_err(), "{forged}");
        }
    }
}
