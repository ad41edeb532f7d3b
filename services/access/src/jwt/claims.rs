//! What a token with a good signature must say, and what it then says about its bearer
//! (RFC 7519 §4.1).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catrust_domain::{AccountId, Sha256, Timestamp};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{JwtAlgorithm, json, micros};
use crate::BrokerBinding;

/// Latest `exp` and `nbf` that are taken at their word: the year 9999. Later ones are no
/// times.
const MAX_SECONDS: f64 = 253_402_300_799.0;

/// What tokens must say, and how long they and the keys count.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// `iss`, compared byte by byte.
    pub issuer: String,
    /// What must be among `aud`.
    pub audience: String,
    /// The algorithms that are accepted.
    pub algorithms: Vec<JwtAlgorithm>,
    /// Claim that names the principal.
    pub user_claim: String,
    /// Claim that names the account.
    pub account_claim: String,
    /// Claim that makes an operator where it is `true`.
    pub operator_claim: Option<String>,
    /// Claim with the instance of a broker's token.
    pub instance_claim: String,
    /// Claim with the broker id of a broker's token.
    pub broker_claim: String,
    /// Whether tokens must be bound to a client certificate (RFC 8705 §3).
    pub require_binding: bool,
    /// How long a key set counts that could not be read again.
    pub max_age: Duration,
    /// How much more kindly `exp` and `nbf` are taken.
    pub clock_skew: Duration,
}

/// What a token of the issuer says about its bearer.
#[derive(Debug)]
pub struct TokenBearer {
    /// Name of the principal.
    pub principal: Arc<str>,
    /// Account of the principal.
    pub account_id: AccountId,
    /// Whether the principal operates catrust.
    pub operator: bool,
    /// The broker that the token is for.
    pub broker: Option<Arc<BrokerBinding>>,
    /// SHA-256 of the client certificate that the token is for (RFC 8705 §3.1).
    pub certificate: Option<Sha256>,
    /// Cancelled when the issuer withdraws the key that signed it.
    pub withdrawn: Arc<CancellationToken>,
    /// From when on it is not accepted, skew not counted.
    expires_at: Timestamp,
    not_before: Option<Timestamp>,
    skew_micros: i64,
}

impl TokenBearer {
    /// From when on it is not accepted, skew counted.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        shifted(self.expires_at, self.skew_micros)
    }

    /// Whether the token counts at `now`: `exp` has not come, `nbf` has.
    pub(super) fn lasts_at(&self, now: Timestamp) -> Result<(), &'static str> {
        if now >= self.expires_at() {
            return Err("it has expired");
        }
        if self.not_before.is_some_and(|from| shifted(from, -self.skew_micros) > now) {
            return Err("it is not valid yet");
        }
        Ok(())
    }
}

fn shifted(time: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(time.micros().saturating_add(micros))
}

impl TokenRules {
    /// Reads the claims of a token whose signature holds. The time is not looked at.
    pub(super) fn read(
        &self,
        payload: &[u8],
        withdrawn: Arc<CancellationToken>,
    ) -> Result<TokenBearer, &'static str> {
        let claims =
            json::object(payload).map_err(|_| "its claims are no JSON object, or one stands twice")?;
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err("its iss is not auth.jwt.issuer");
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err("its aud does not hold auth.jwt.audience");
        }
        let expires_at = time(&claims, "exp")?.ok_or("it has no exp")?;
        let not_before = time(&claims, "nbf")?;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let principal = text(&self.user_claim).filter(|name| is_principal(name));
        let principal = principal.ok_or("auth.jwt.user_claim is missing in it, or is no name")?;
        let account_id = text(&self.account_claim).and_then(|account| account.parse().ok());
        let account_id = account_id.ok_or("auth.jwt.account_claim is missing in it, or is no account")?;
        let operator = self.operator_claim.as_ref().and_then(|claim| claims.get(claim));
        let operator = operator == Some(&Value::Bool(true));
        let broker = self.broker(&claims)?;
        if operator && broker.is_some() {
            return Err("it makes a broker an operator");
        }
        Ok(TokenBearer {
            principal: Arc::from(principal),
            account_id,
            operator,
            broker: broker.map(Arc::new),
            certificate: self.certificate(claims.get("cnf"))?,
            withdrawn,
            expires_at,
            not_before,
            skew_micros: micros(self.clock_skew),
        })
    }

    /// The broker that the token is for. Half of one is a mistake of the issuer's, and would
    /// be no limit.
    fn broker(&self, claims: &Map<String, Value>) -> Result<Option<BrokerBinding>, &'static str> {
        let text = |claim: &str| claims.get(claim).map(|value| value.as_str().unwrap_or_default());
        match (text(&self.instance_claim), text(&self.broker_claim)) {
            (None, None) => Ok(None),
            (Some(instance), Some(broker)) => match (instance.parse(), broker.parse()) {
                (Ok(instance_id), Ok(broker_id)) => Ok(Some(BrokerBinding { instance_id, broker_id })),
                _ => Err("auth.jwt.instance_claim or auth.jwt.broker_claim is malformed in it"),
            },
            _ => Err("it has one of auth.jwt.instance_claim and auth.jwt.broker_claim without the other"),
        }
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        match audience {
            Some(Value::String(one)) => *one == self.audience,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => false,
        }
    }

    /// The certificate of `cnf` (RFC 7800 §3.1, RFC 8705 §3.1). A confirmation by another
    /// method is one that we cannot check, and not none.
    fn certificate(&self, confirmation: Option<&Value>) -> Result<Option<Sha256>, &'static str> {
        let Some(confirmation) = confirmation else {
            return if self.require_binding { Err("it is bound to no certificate") } else { Ok(None) };
        };
        let thumbprint = confirmation.get("x5t#S256").and_then(Value::as_str);
        let bytes = thumbprint.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let hash = bytes.and_then(|bytes| Sha256::from_slice(&bytes));
        hash.map(Some).ok_or("its cnf has no x5t#S256")
    }
}

/// A NumericDate: seconds, perhaps with a fraction (RFC 7519 §2).
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, &'static str> {
    let Some(claim) = claims.get(name) else { return Ok(None) };
    let seconds = claim.as_f64().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    let seconds = seconds.ok_or("its exp or nbf is no time")?;
    // In range by the check above.
    Ok(Some(Timestamp::from_micros((seconds * 1_000_000.0) as i64)))
}

fn is_principal(name: &str) -> bool {
    (1..=256).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}
