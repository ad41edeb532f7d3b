//! Keeps the plugin told: changes at once, renewals in between, everything again to a
//! broker that was away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catrust_domain::error_chain;
use catrust_mosquitto_control::{RequestBody, RequestOutcome, Response};
use catrust_trust_feed::agent::{AgentTrust, Applied, NotApplied};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::bundle;
use super::connection::{ControlConnection, ControlError};
use super::settings::MosquittoSettings;

/// Longest time between two renewals. They carry the number of open sessions back, for
/// the agent's sign of life, so that they are not spaced by a long lease.
const RENEWAL: Duration = Duration::from_secs(5);
/// Time between two looks for a broker that is away: one that comes back trusts nobody
/// until it is told, so that its devices wait.
const RETRY: Duration = Duration::from_millis(200);

/// What the enforcer asks for.
#[derive(Debug)]
pub struct Assignment {
    /// The trust.
    pub trust: AgentTrust,
    /// Where the result goes.
    pub reply: oneshot::Sender<Result<Applied, NotApplied>>,
}

/// The task behind the enforcer.
#[derive(Debug)]
pub struct Upkeep {
    settings: MosquittoSettings,
    open: Arc<AtomicU64>,
    connection: Option<ControlConnection>,
    /// The trust that the plugin has taken last.
    trust: Option<AgentTrust>,
    /// What the log was told last, so that it is not told the same again and again.
    complaint: Option<String>,
}

impl Upkeep {
    /// Starts without a connection.
    pub const fn new(settings: MosquittoSettings, open: Arc<AtomicU64>) -> Self {
        Self { settings, open, connection: None, trust: None, complaint: None }
    }

    /// Runs until the enforcer is gone.
    pub async fn run(mut self, mut assignments: mpsc::Receiver<Assignment>) {
        let mut renewal = interval(RENEWAL.min(self.settings.lease / 4));
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let retry = Instant::now() + RETRY;
            tokio::select! {
                assignment = assignments.recv() => match assignment {
                    Some(assignment) => self.carry_out(assignment).await,
                    None => return,
                },
                _ = renewal.tick() => self.renew().await,
                error = broken(&mut self.connection) => self.lost(&error),
                () = sleep_until(retry), if self.connection.is_none() => self.come_back().await,
            }
        }
    }

    async fn carry_out(&mut self, assignment: Assignment) {
        let Assignment { trust, reply } = assignment;
        let result = self.tell(&trust).await;
        // The agent sees to it that a failure is tried again, with this trust or a newer.
        if result.is_ok() {
            self.trust = Some(trust);
        }
        // Fails where the agent does not want to know any more.
        let _ = reply.send(result);
    }

    /// Tells the plugin the whole trust.
    async fn tell(&mut self, trust: &AgentTrust) -> Result<Applied, NotApplied> {
        let bundle = bundle::bundle(trust, self.settings.lease)?;
        let response = self.ask(RequestBody::Bundle(bundle)).await.map_err(|error| {
            self.open.store(0, Ordering::Relaxed);
            NotApplied { reason: error_chain(&error) }
        })?;
        match response.outcome {
            RequestOutcome::Applied => {
                self.complaint = None;
                Ok(Applied { sessions_cut: response.kicked, sessions_open: response.open })
            }
            RequestOutcome::Refused => {
                Err(NotApplied { reason: format!("the plugin refuses: {}", response.reason) })
            }
        }
    }

    async fn ask(&mut self, body: RequestBody) -> Result<Response, ControlError> {
        if let Some(connection) = self.connection.take() {
            match self.ask_on(connection, body.clone()).await {
                // The broker was restarted a moment ago; the new one is as good.
                Err(ControlError::Broken(_)) => {}
                other => return other,
            }
        }
        let connection = ControlConnection::open(&self.settings).await?;
        self.ask_on(connection, body).await
    }

    /// Asks, and keeps the connection unless it failed.
    async fn ask_on(
        &mut self,
        mut connection: ControlConnection,
        body: RequestBody,
    ) -> Result<Response, ControlError> {
        let response = connection.request(body).await?;
        self.open.store(response.open, Ordering::Relaxed);
        self.connection = Some(connection);
        Ok(response)
    }

    /// Says that the trust is still the current one.
    async fn renew(&mut self) {
        if self.connection.is_none() {
            return;
        }
        let Some(trust) = self.trust.clone() else { return self.ping().await };
        let renewal = bundle::renewal(&trust, self.settings.lease);
        match self.ask(RequestBody::Renewal(renewal)).await {
            Ok(response) if response.outcome == RequestOutcome::Applied => {
                if response.kicked > 0 {
                    tracing::info!(sessions_cut = response.kicked, "sessions were cut: certificates expired");
                }
            }
            // A broker that was restarted a moment ago, or one that somebody else has
            // told another revision.
            Ok(response) => {
                self.complain(&format!("the plugin refuses: {}", response.reason));
                self.tell_again(trust).await;
            }
            Err(error) => self.lost(&error),
        }
    }

    async fn ping(&mut self) {
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.ping().await
        {
            self.lost(&error);
        }
    }

    /// Looks for the broker, and tells it what it was told before.
    async fn come_back(&mut self) {
        match ControlConnection::open(&self.settings).await {
            Ok(connection) => {
                tracing::info!(socket = %self.settings.control_socket.display(), "connected to the broker");
                self.connection = Some(connection);
                self.complaint = None;
                if let Some(trust) = self.trust.clone() {
                    self.tell_again(trust).await;
                }
            }
            Err(error) => self.complain(&error_chain(&error)),
        }
    }

    async fn tell_again(&mut self, trust: AgentTrust) {
        // The wills of sessions that are cut by a repetition belong to no change.
        let trust = AgentTrust { with_will: false, ..trust };
        match self.tell(&trust).await {
            Ok(applied) => tracing::info!(
                revision = trust.bundle.revision,
                sessions_cut = applied.sessions_cut,
                "the broker was told the trust again"
            ),
            Err(error) => self.complain(&error.reason),
        }
    }

    fn lost(&mut self, error: &ControlError) {
        self.connection = None;
        self.open.store(0, Ordering::Relaxed);
        self.complain(&error_chain(error));
    }

    fn complain(&mut self, text: &str) {
        if self.complaint.as_deref() != Some(text) {
            tracing::warn!(reason = text, "the plugin is not told; trying again");
            self.complaint = Some(text.to_owned());
        }
    }
}

/// Waits until the connection breaks; for ever where there is none.
async fn broken(connection: &mut Option<ControlConnection>) -> ControlError {
    match connection {
        Some(connection) => connection.broken().await,
        None => std::future::pending().await,
    }
}
