//! Keeps the key set true to the issuer's while the server runs.
//!
//! A file is looked at every 2 seconds, an address every `auth.jwt.refresh_seconds`; when a
//! token names an unknown key, at once, but at most every [`PAUSE`]: tokens are made up
//! easily, and must not have us ask the issuer for each of them. What cannot be read or
//! used leaves in force what was, until that is too old.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use catrust_event_store::Clock;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::fetch::Endpoint;
use super::{KeySet, Tokens};
use crate::config::{JwtConfig, key_set_address};
use crate::metrics::Metrics;

/// Shortest time between two looks at an address.
const PAUSE: Duration = Duration::from_secs(10);
/// Time between two looks at a file.
const FILE_INTERVAL: Duration = Duration::from_secs(2);

/// Where the key set comes from.
enum Source {
    File(PathBuf),
    Url(Endpoint),
}

/// The task that keeps the key set.
pub struct KeySetRefresh {
    tokens: Arc<Tokens>,
    source: Source,
    interval: Duration,
    clock: Clock,
    /// The document in force, to tell whether another one came.
    document: Bytes,
    failing: bool,
}

impl KeySetRefresh {
    /// Reads the key set for the first time.
    ///
    /// # Errors
    /// The file cannot be used, or the CAs for the address. An address that does not answer
    /// is no error: tokens are refused until it does.
    pub async fn start(config: &JwtConfig, clock: Clock) -> anyhow::Result<(Arc<Tokens>, Self)> {
        let tokens = Arc::new(Tokens::new(config));
        let (source, interval) = match (&config.key_set_file, &config.key_set_url) {
            (Some(path), _) => (Source::File(path.clone()), FILE_INTERVAL),
            (None, Some(url)) => {
                let uri = key_set_address(url).map_err(anyhow::Error::msg).context("auth.jwt.key_set_url")?;
                let endpoint = Endpoint::new(uri, config.key_set_ca_file.as_deref());
                let endpoint = endpoint.context("auth.jwt.key_set_ca_file cannot be used")?;
                (Source::Url(endpoint), Duration::from_secs(config.refresh_seconds))
            }
            (None, None) => anyhow::bail!("auth.jwt.key_set_file is not set"),
        };
        let document = Bytes::new();
        let mut refresh = Self { tokens, source, interval, clock, document, failing: false };
        if let Err(error) = refresh.look().await {
            match refresh.source {
                Source::File(_) => return Err(error.context("auth.jwt.key_set_file cannot be used")),
                Source::Url(_) => refresh.tell_failure(&error),
            }
        }
        Ok((Arc::clone(&refresh.tokens), refresh))
    }

    /// Looks until told to stop.
    ///
    /// # Errors
    /// Never: a server without fresh keys goes on with the others, and with certificates.
    pub async fn run(mut self, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            metrics.identities().key_set(self.failing);
            let looked = Instant::now();
            let next = looked + if self.failing { self.interval.min(PAUSE) } else { self.interval };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep_until(next) => {}
                () = self.asked_for(looked) => {}
            }
            match self.look().await {
                Ok(()) if self.failing => {
                    self.failing = false;
                    tracing::info!(keys = self.tokens.len(), "the key set of auth.jwt can be read again");
                }
                Ok(()) => {}
                Err(error) => self.tell_failure(&error),
            }
        }
    }

    /// Ends when somebody has shown an unknown key, and the last look is long enough ago.
    async fn asked_for(&self, looked: Instant) {
        match self.source {
            Source::Url(_) => {
                self.tokens.unknown_key().await;
                sleep_until(looked + PAUSE).await;
            }
            // Looked at often enough.
            Source::File(_) => std::future::pending().await,
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let document = match &self.source {
            Source::File(path) => {
                let read = tokio::fs::read(path).await;
                Bytes::from(read.with_context(|| format!("cannot read {}", path.display()))?)
            }
            Source::Url(endpoint) => endpoint.fetch().await?,
        };
        // Before the look would be truer, and no look takes longer than the skew.
        let now = (self.clock)();
        if document == self.document {
            self.tokens.confirm(now);
            return Ok(());
        }
        let keys = KeySet::parse(&document).map_err(anyhow::Error::msg)?;
        tracing::info!(keys = keys.len(), "key set of auth.jwt in force");
        self.tokens.replace(keys, now);
        self.document = document;
        Ok(())
    }

    /// Says so once, and not at each of a hundred looks.
    fn tell_failure(&mut self, error: &anyhow::Error) {
        if !self.failing {
            self.failing = true;
            tracing::error!(
                error = format!("{error:#}"),
                keys = self.tokens.len(),
                "the key set of auth.jwt cannot be read; what was in force stays until auth.jwt.max_age_seconds"
            );
        }
    }
}
