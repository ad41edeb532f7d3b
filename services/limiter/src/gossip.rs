//! The gossip's task: the exchange, the wire, and the numbers told about both.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::error_chain;
use catrust_trust_feed::{SpendingSender, SpendingStream};
use futures::StreamExt as _;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::exchange::Exchange;
use super::instruments::LimiterInstruments;
use super::peers::{Reception, ReplicaFleet};
use super::{Share, UserLimiter};

/// How often a replica tells what was spent.
const ROUND: Duration = Duration::from_millis(50);
/// How long a message may take to be handed over: a wire that hangs must not keep this
/// replica from giving less.
const HANDOVER: Duration = Duration::from_millis(50);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Tells and hears.
pub struct Gossip {
    /// What is said and what it is worth.
    pub exchange: Exchange,
    /// The share that the limiter gives at the start: what it gives later is told.
    pub share: Share,
    /// The limiter that it is about.
    pub limiter: Arc<UserLimiter>,
    /// Where messages go.
    pub sender: SpendingSender,
    /// Where they come from.
    pub stream: SpendingStream,
    /// Where they are counted.
    pub instruments: LimiterInstruments,
}

impl Gossip {
    /// Runs until `stop`, when nothing is admitted any more, or until the feed has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut share = self.share;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticks.tick() => share = self.round(share).await,
                message = self.stream.next() => match message {
                    Some(message) => self.hear(&message),
                    // It ends only with its feed, which lives as long as the server.
                    None => break,
                },
            }
        }
        let messages = self.exchange.leave(self.limiter.now());
        if self.sender.is_connected() {
            self.send(messages).await;
            let _ = timeout(LAST_WORDS, self.sender.flush()).await;
        }
    }

    async fn round(&mut self, before: Share) -> Share {
        let round = self.exchange.round(self.limiter.now(), self.sender.is_connected());
        tell(before, &round.fleet);
        self.instruments.fleet(round.fleet, round.age);
        self.send(round.messages).await;
        round.fleet.share
    }

    async fn send(&mut self, messages: Vec<Vec<u8>>) {
        for message in messages {
            match timeout(HANDOVER, self.sender.send(message)).await {
                Ok(Ok(())) => self.instruments.gossip("sent"),
                Ok(Err(error)) => {
                    self.instruments.gossip("unsent");
                    tracing::debug!(error = error_chain(&error), "what users spent could not be told");
                }
                Err(_) => self.instruments.gossip("unsent"),
            }
        }
    }

    fn hear(&mut self, message: &[u8]) {
        let worth = self.exchange.hear(message, self.limiter.now());
        self.instruments.gossip(match worth {
            Some(Reception::Own) => return,
            Some(Reception::Counts) => "received",
            Some(Reception::Unanswering) => "unanswering",
            Some(Reception::Repeated) => "repeated",
            Some(Reception::Crowded) => "crowded",
            None => "invalid",
        });
    }
}

fn tell(before: Share, fleet: &ReplicaFleet) {
    if fleet.share == before {
        return;
    }
    let ReplicaFleet { share, replicas, heard } = fleet;
    let (part, of) = (share.part, share.of);
    if part < of {
        tracing::warn!(
            part,
            of,
            replicas,
            heard,
            "the rate limit of each user is this replica's share, because the others are not heard"
        );
    } else {
        tracing::info!(replicas, heard, "the rate limit of each user is that of all replicas together");
    }
}
