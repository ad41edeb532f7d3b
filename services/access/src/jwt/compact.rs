//! The form of a token: `HEADER.PAYLOAD.SIGNATURE` in base64url (RFC 7515 §7.1), and what
//! its header may say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{MAX_TOKEN, json};

/// Most bytes of a key's name.
const MAX_KEY_ID: usize = 256;

/// A token whose signature has not been looked at.
pub(super) struct Token<'a> {
    pub header: Header,
    /// What the signature is over.
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
    payload: &'a str,
}

/// What of the header counts. `jku`, `jwk`, `x5u` and `x5c`, by which a token would bring its
/// own key, are not read (RFC 8725 §3.10).
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub algorithm: String,
    pub key_id: String,
}

/// Whether a text has the form of a JWT, so that it is worth parsing.
pub(crate) fn looks_like_one(token: &str) -> bool {
    token.starts_with("ey") && token.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn parse(token: &'a str) -> Result<Self, &'static str> {
        if token.len() > MAX_TOKEN {
            return Err("it is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it is no JWT")?;
        let (header, payload) = signed.split_once('.').ok_or("it is no JWT")?;
        if payload.contains('.') {
            return Err("it is no signed JWT");
        }
        let header = Header::parse(&decode(header)?)?;
        Ok(Self { header, signed: signed.as_bytes(), signature: decode(signature)?, payload })
    }

    /// The claims, as JSON.
    pub fn payload(&self) -> Result<Vec<u8>, &'static str> {
        decode(self.payload)
    }
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let members = json::object(text).map_err(|_| "its header is no JSON object")?;
        let text = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err("a member of its header is no text"),
        };
        // An extension that must be understood and is not (RFC 7515 §4.1.11). We know none.
        if members.contains_key("crit") {
            return Err("its header has crit");
        }
        // A token of another type, such as a logout token, must not pass for an access token
        // (RFC 8725 §3.11), and nested tokens are not read.
        if text("typ")?.is_some_and(|typ| !is_access_type(&typ)) {
            return Err("its typ is neither JWT nor at+jwt");
        }
        if members.contains_key("cty") {
            return Err("its header has cty");
        }
        let algorithm = text("alg")?.ok_or("its header has no alg")?;
        let key_id = text("kid")?.ok_or("its header has no kid")?;
        if key_id.len() > MAX_KEY_ID {
            return Err("its kid is too long");
        }
        Ok(Self { algorithm, key_id })
    }
}

fn is_access_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// Strict: no padding, and no bits that nobody reads, so that a token has one spelling.
fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "it is not base64url")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<Header, &'static str> {
        Header::parse(text.as_bytes())
    }

    #[test]
    fn a_header_names_algorithm_and_key_and_what_else_it_offers_is_not_read() {
        let good =
            header(r#"{"alg":"ES256","kid":"k","typ":"at+jwt","jku":"https://evil","jwk":{"kty":"EC"}}"#);
        assert_eq!(good, Ok(Header { algorithm: "ES256".into(), key_id: "k".into() }));
        for typ in ["JWT", "jwt", "application/at+jwt"] {
            assert!(header(&format!(r#"{{"alg":"ES256","kid":"k","typ":"{typ}"}}"#)).is_ok(), "{typ}");
        }
    }

    #[test]
    fn a_header_that_asks_for_more_than_we_know_is_refused() {
        let bad = [
            (r#"{"kid":"k"}"#, "alg"),
            (r#"{"alg":"ES256"}"#, "kid"),
            (r#"{"alg":1,"kid":"k"}"#, "no text"),
            (r#"{"alg":"ES256","kid":"k","crit":["exp"]}"#, "crit"),
            (r#"{"alg":"ES256","kid":"k","crit":[]}"#, "crit"),
            (r#"{"alg":"ES256","kid":"k","typ":"logout+jwt"}"#, "typ"),
            (r#"{"alg":"ES256","kid":"k","cty":"JWT"}"#, "cty"),
            (r#"{"alg":"none","alg":"ES256","kid":"k"}"#, "JSON"),
            ("[]", "JSON"),
        ];
        for (text, expected) in bad {
            let reason = header(text).unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        let long = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(MAX_KEY_ID + 1));
        assert_eq!(header(&long), Err("its kid is too long"));
    }

    #[test]
    fn a_token_has_three_parts_in_one_spelling() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k"}"#);
        let good = format!("{header}.e30.AAAA");
        assert!(looks_like_one(&good));
        let token = Token::parse(&good).unwrap_or_else(|reason| panic!("{reason}"));
        assert_eq!(
            (token.signed, token.payload().unwrap()),
            (&good.as_bytes()[..good.len() - 5], b"{}".to_vec())
        );
        let bad =
            ["", ".", "..", "a.b", &header, &format!("{header}.e30.AAAA.x"), &format!("{header}.e30.AAA=")];
        for text in bad {
            assert!(Token::parse(text).is_err(), "{text}");
        }
        // The last character of a part may hold bits that no byte has.
        assert!(Token::parse(&format!("{header}.e30.AB")).is_err());
        assert!(Token::parse(&format!("{header}.{}.AAAA", "e".repeat(MAX_TOKEN))).is_err());
        assert!(!looks_like_one("0123456789abcdef") && !looks_like_one("ey.a") && !looks_like_one("a.b.c"));
    }
}
