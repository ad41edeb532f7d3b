//! `[auth.jwt]`: callers who bring a token of an issuer.

use std::path::PathBuf;
use std::time::Duration;

use catrust_access::jwt::{JwtAlgorithm, TokenRules};
use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// JWT bearer tokens (RFC 7519) of one issuer. Off where no issuer is set. A token says who
/// calls; what they may do is in the policies, so that `auth.policy_dir` is needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// `iss` of the tokens, compared byte by byte. No default: without it no JWT is accepted.
    pub issuer: Option<String>,
    /// What must be among the tokens' `aud`: the name of this service at the issuer. Required
    /// with `issuer`: a token for somebody else must not open this door.
    pub audience: Option<String>,
    /// Signature algorithms that are accepted. Default ES256, ES384, EdDSA, RS256, PS256. Only
    /// asymmetric ones exist here: who can check a MAC can forge it. Keep those that your
    /// issuer uses.
    pub algorithms: Vec<JwtAlgorithm>,
    /// JSON file with the issuer's key set (RFC 7517), read again every 2 seconds; replace it
    /// by renaming. Set this or `key_set_url`.
    pub key_set_file: Option<PathBuf>,
    /// Where the issuer publishes its key set (its `jwks_uri`): https, or http on loopback.
    /// Redirects are not followed. A server that starts while it is away refuses tokens until
    /// it is back, and nothing else.
    pub key_set_url: Option<String>,
    /// PEM file of the CAs that `key_set_url`'s certificate is checked against. Default: the
    /// system's.
    pub key_set_ca_file: Option<PathBuf>,
    /// Seconds between two looks at `key_set_url`, 10 to 86,400. Default 300. A token with an
    /// unknown key makes the server look at once, but every 10 seconds at most.
    pub refresh_seconds: u64,
    /// Seconds for which a key set counts that could not be read again, 60 to 604,800. Default
    /// 86,400. After that tokens are refused: a key that was withdrawn meanwhile must not live
    /// for ever.
    pub max_age_seconds: u64,
    /// Seconds that the issuer's clock may differ from this server's, 0 to 300. Default 30.
    /// `exp` and `nbf` are taken that much more kindly.
    pub clock_skew_seconds: u64,
    /// Claim that names the principal, 1 to 256 characters. Default `sub`.
    pub user_claim: String,
    /// Claim that names the account. Default `account_id`.
    pub account_claim: String,
    /// Claim that makes its bearer an operator of catrust where it is `true`. No default: tokens
    /// make no operators. Only for an issuer that lets nobody set it for themselves.
    pub operator_claim: Option<String>,
    /// Claim with the MQTT instance of a broker's token. Default `mqtt_instance_id`. A token with
    /// this and `broker_claim` is that broker's: it may watch and report for it, and nothing
    /// else.
    pub instance_claim: String,
    /// Claim with the broker id of a broker's token. Default `broker_id`.
    pub broker_claim: String,
    /// Refuse tokens that are not bound to the client certificate of the connection by
    /// `cnf.x5t#S256` (RFC 8705 §3). Default false. A stolen token is worth nothing then.
    /// Needs `tls.client_ca_file`.
    pub require_binding: bool,
}

impl Default for JwtConfig {
    fn default() -> Self {
        use JwtAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256};
        Self {
            issuer: None,
            audience: None,
            algorithms: vec![Es256, Es384, EdDsa, Rs256, Ps256],
            key_set_file: None,
            key_set_url: None,
            key_set_ca_file: None,
            refresh_seconds: 300,
            max_age_seconds: 86_400,
            clock_skew_seconds: 30,
            user_claim: "sub".to_owned(),
            account_claim: "account_id".to_owned(),
            operator_claim: None,
            instance_claim: "mqtt_instance_id".to_owned(),
            broker_claim: "broker_id".to_owned(),
            require_binding: false,
        }
    }
}

impl JwtConfig {
    /// What tokens must say. The settings MUST have been validated.
    #[must_use]
    pub fn rules(&self) -> TokenRules {
        TokenRules {
            issuer: self.issuer.clone().unwrap_or_default(),
            audience: self.audience.clone().unwrap_or_default(),
            algorithms: self.algorithms.clone(),
            user_claim: self.user_claim.clone(),
            account_claim: self.account_claim.clone(),
            operator_claim: self.operator_claim.clone(),
            instance_claim: self.instance_claim.clone(),
            broker_claim: self.broker_claim.clone(),
            require_binding: self.require_binding,
            max_age: Duration::from_secs(self.max_age_seconds),
            clock_skew: Duration::from_secs(self.clock_skew_seconds),
        }
    }

    /// Whether tokens of an issuer are accepted.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.issuer.is_some()
    }

    pub(crate) fn validate(&self, has_policies: bool, has_client_ca: bool, problems: &mut Problems) {
        if !self.enabled() {
            let untouched = *self == Self::default();
            problems.require(untouched, "auth.jwt.issuer", "is required with any other key of [auth.jwt]");
            return;
        }
        problems.require(
            has_policies,
            "auth.policy_dir",
            "is required with auth.jwt.issuer: a token says who calls, and policies say what they may do; \
             start from deploy/policies",
        );
        problems.require(
            !self.require_binding || has_client_ca,
            "tls.client_ca_file",
            "is required with auth.jwt.require_binding: tokens are bound to client certificates",
        );
        self.validate_texts(problems);
        self.validate_source(problems);
        self.validate_numbers(problems);
    }

    fn validate_texts(&self, problems: &mut Problems) {
        let some = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        problems.require(some(&self.issuer), "auth.jwt.issuer", "must not be empty");
        problems.require(
            some(&self.audience),
            "auth.jwt.audience",
            "is required: the name of this service at the issuer, as it stands in `aud`",
        );
        problems.require(!self.algorithms.is_empty(), "auth.jwt.algorithms", "is empty: no token would pass");
        let claims = [
            ("auth.jwt.user_claim", Some(&self.user_claim)),
            ("auth.jwt.account_claim", Some(&self.account_claim)),
            ("auth.jwt.instance_claim", Some(&self.instance_claim)),
            ("auth.jwt.broker_claim", Some(&self.broker_claim)),
            ("auth.jwt.operator_claim", self.operator_claim.as_ref()),
        ];
        for (key, claim) in claims {
            problems.require(claim.is_none_or(|name| !name.is_empty()), key, "must not be empty");
        }
    }

    fn validate_source(&self, problems: &mut Problems) {
        problems.require(
            self.key_set_file.is_some() != self.key_set_url.is_some(),
            "auth.jwt.key_set_file",
            "set exactly one of auth.jwt.key_set_file and auth.jwt.key_set_url",
        );
        problems.require(
            self.key_set_ca_file.is_none() || self.key_set_url.is_some(),
            "auth.jwt.key_set_ca_file",
            "is for auth.jwt.key_set_url, which is not set",
        );
        if let Some(url) = &self.key_set_url
            && let Err(problem) = key_set_address(url)
        {
            problems.add("auth.jwt.key_set_url", problem);
        }
    }

    fn validate_numbers(&self, problems: &mut Problems) {
        problems.within(
            "auth.jwt.refresh_seconds",
            self.refresh_seconds,
            10..=86_400,
            "less burdens the issuer, more keeps a withdrawn key for days",
        );
        problems.within(
            "auth.jwt.max_age_seconds",
            self.max_age_seconds,
            60..=604_800,
            "less makes a short outage of the issuer ours, more keeps a withdrawn key for weeks",
        );
        problems.require(
            self.max_age_seconds > self.refresh_seconds,
            "auth.jwt.max_age_seconds",
            "must be more than auth.jwt.refresh_seconds, or the keys lapse between two looks",
        );
        problems.within(
            "auth.jwt.clock_skew_seconds",
            self.clock_skew_seconds,
            0..=300,
            "more lets tokens live long after their end",
        );
    }
}

/// Reads `auth.jwt.key_set_url`.
///
/// # Errors
/// What is wrong with it, and what to write.
pub(crate) fn key_set_address(text: &str) -> Result<Uri, &'static str> {
    let form = "must look like https://issuer.example.org/jwks.json";
    let uri: Uri = text.parse().map_err(|_| form)?;
    let authority = uri.authority().ok_or(form)?;
    if authority.as_str().contains('@') {
        return Err("must not hold credentials: key sets are public");
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_loopback(authority.host()) => Ok(uri),
        Some("http") => Err("must be https: who can change the key set on its way can be anybody"),
        _ => Err(form),
    }
}

/// Addresses only, not `localhost`: what a name stands for is somebody's setting.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_comes_by_https_or_from_this_machine() {
        for good in ["https://issuer.example.org/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]/jwks"] {
            assert!(key_set_address(good).is_ok(), "{good}");
        }
        let bad = ["http://issuer.example.org/jwks", "http://localhost/jwks", "issuer/jwks", "ftp://x/y", ""];
        for bad in bad.into_iter().chain(["https://u:p@issuer/jwks", "http://127.0.0.1.example.org/"]) {
            assert!(key_set_address(bad).is_err(), "{bad}");
        }
    }
}
