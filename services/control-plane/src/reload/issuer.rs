//! The key set of the issuer of tokens (`auth.jwt`).
//!
//! A file is looked at every 2 seconds, an address every `auth.jwt.refresh_seconds`; when a
//! token names an unknown key, at once, but at most every [`PAUSE`]: tokens are made up easily,
//! and must not have us ask the issuer for each of them. What was in force stays until it is too
//! old.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use catrust_domain::Sha256;
use catrust_event_store::Clock;
use opentelemetry::metrics::Meter;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Content, FILE_INTERVAL, Reload, ReloadInstruments};
use crate::config::{JwtConfig, key_set_address};
use catrust_access::jwt::{Endpoint, JwkSet, Tokens};

/// Shortest time between two looks at an address.
const PAUSE: Duration = Duration::from_secs(10);

/// Where the key set comes from.
enum IssuerSource {
    File(PathBuf),
    Url { endpoint: Endpoint, interval: Duration },
}

/// The key set, and the tokens that are checked by it.
pub(crate) struct IssuerKeys {
    tokens: Arc<Tokens>,
    source: IssuerSource,
    clock: Clock,
}

impl IssuerKeys {
    /// Reads nothing yet but the CAs of the address.
    ///
    /// # Errors
    /// The CAs cannot be used.
    pub(crate) fn new(config: &JwtConfig, tokens: Arc<Tokens>, clock: Clock) -> anyhow::Result<Self> {
        let source = match (&config.key_set_file, &config.key_set_url) {
            (Some(path), _) => IssuerSource::File(path.clone()),
            (None, Some(url)) => {
                let uri = key_set_address(url).map_err(anyhow::Error::msg).context("auth.jwt.key_set_url")?;
                let endpoint = Endpoint::new(uri, config.key_set_ca_file.as_deref());
                let endpoint = endpoint.context("auth.jwt.key_set_ca_file cannot be used")?;
                IssuerSource::Url { endpoint, interval: Duration::from_secs(config.refresh_seconds) }
            }
            (None, None) => anyhow::bail!("auth.jwt.key_set_file is not set"),
        };
        Ok(Self { tokens, source, clock })
    }
}

#[async_trait]
impl Reload for IssuerKeys {
    fn name(&self) -> &'static str {
        "key set of auth.jwt"
    }

    fn instruments(&self, meter: &Meter) -> ReloadInstruments {
        let refused = meter
            .u64_gauge("catrust.identity.key_set.failing")
            .with_description("1 while the issuer's key set cannot be read")
            .build();
        ReloadInstruments { reloads: None, refused, labels: Vec::new() }
    }

    /// A key set is one document.
    fn settles(&self) -> bool {
        false
    }

    /// Tokens are refused until an issuer that does not answer is back, and nothing else.
    fn may_be_away(&self) -> bool {
        matches!(self.source, IssuerSource::Url { .. })
    }

    async fn read(self: Arc<Self>) -> anyhow::Result<Content> {
        let document = match &self.source {
            IssuerSource::File(path) => {
                let read = tokio::fs::read(path).await;
                Bytes::from(read.with_context(|| format!("cannot read {}", path.display()))?)
            }
            IssuerSource::Url { endpoint, .. } => endpoint.fetch().await.context("it cannot be read")?,
        };
        let version = Sha256::of(&document).to_string();
        let adopt = move || {
            let keys = JwkSet::parse(&document).map_err(anyhow::Error::msg)?;
            tracing::info!(keys = keys.len(), "key set of auth.jwt in force");
            self.tokens.replace(keys, (self.clock)());
            Ok(())
        };
        Ok(Content { version, adopt: Box::new(adopt) })
    }

    /// Before the look would be truer, and no look takes longer than the skew.
    fn confirm(&self) {
        self.tokens.confirm((self.clock)());
    }

    async fn due(&self, failing: bool) {
        let IssuerSource::Url { interval, .. } = &self.source else { return sleep(FILE_INTERVAL).await };
        let looked = Instant::now();
        let asked_for = async {
            self.tokens.unknown_key().await;
            sleep_until(looked + PAUSE).await;
        };
        tokio::select! {
            () = sleep(if failing { PAUSE.min(*interval) } else { *interval }) => {}
            () = asked_for => {}
        }
    }
}
