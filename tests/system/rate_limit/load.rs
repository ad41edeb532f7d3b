//! Calls at a pace that no answer changes, what became of each, and what any window of
//! them holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use catrust_proto::v1::GetCaCertificateRequest;
use catrust_tests::client::Caller;
use catrust_tests::deployment::Replica;
use catrust_tests::http;
use tokio::task::JoinSet;
use tonic::Code;

/// Windows that are looked at, in seconds.
const SHORTEST: f64 = 0.1;
const LONGEST: f64 = 10.0;

/// One call, in seconds since the load began, by the clock of the client.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// When it was to be sent, if nothing had held it up.
    pub due: f64,
    pub sent: f64,
    pub answered: f64,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Admitted,
    Refused,
    /// Neither: the replica went away.
    Lost,
}

/// One user's way to some replicas, and whether each of them is there.
pub struct User {
    callers: Vec<(Caller, Arc<AtomicBool>)>,
    request: GetCaCertificateRequest,
}

/// A replica, and whether calls are sent to it.
pub type Target<'a> = (&'a Replica, &'a Arc<AtomicBool>);

impl User {
    /// `token` at `targets`, taking turns; each call reads the certificate of `request`.
    pub fn new(
        token: &str,
        targets: &[Target<'_>],
        request: &GetCaCertificateRequest,
    ) -> anyhow::Result<Self> {
        let caller = |(replica, there): &Target<'_>| {
            anyhow::Ok((replica.server.caller(Some(token))?, Arc::clone(there)))
        };
        let callers = targets.iter().map(caller).collect::<Result<_, _>>()?;
        Ok(Self { callers, request: request.clone() })
    }

    /// Connects, so that the load measures calls.
    pub async fn warm_up(&self) -> anyhow::Result<()> {
        for (caller, _) in &self.callers {
            caller.ca.clone().get_ca_certificate(self.request.clone()).await?;
        }
        Ok(())
    }

    /// Sends `per_second` calls until `duration` after `began`, however they are answered.
    pub async fn offer(&self, per_second: u32, began: Instant, duration: Duration) -> Vec<Call> {
        let mut calls = JoinSet::new();
        for number in 0..(f64::from(per_second) * duration.as_secs_f64()) as u32 {
            let due = began + Duration::from_secs_f64(f64::from(number) / f64::from(per_second));
            tokio::time::sleep_until(due.into()).await;
            calls.spawn(self.call(number, began, due));
        }
        calls.join_all().await
    }

    /// Sends so many calls at the same moment.
    pub async fn herd(&self, calls: u32, began: Instant) -> Vec<Call> {
        futures::future::join_all((0..calls).map(|number| self.call(number, began, began))).await
    }

    /// Call `number`, to the replica whose turn it is among those that are there.
    fn call(&self, number: u32, began: Instant, due: Instant) -> impl Future<Output = Call> + use<> {
        let there: Vec<_> = self.callers.iter().filter(|(_, there)| there.load(Ordering::Relaxed)).collect();
        let (caller, _) = there[number as usize % there.len()];
        let (mut client, request) = (caller.ca.clone(), self.request.clone());
        let due = (due - began).as_secs_f64();
        async move {
            let sent = began.elapsed().as_secs_f64();
            let outcome = match client.get_ca_certificate(request).await {
                Ok(_) => Outcome::Admitted,
                Err(status) if status.code() == Code::ResourceExhausted => Outcome::Refused,
                Err(_) => Outcome::Lost,
            };
            Call { due, sent, answered: began.elapsed().as_secs_f64(), outcome }
        }
    }
}

/// Calls with an outcome.
pub fn count(calls: &[Call], outcome: Outcome) -> usize {
    calls.iter().filter(|call| call.outcome == outcome).count()
}

/// Calls with an outcome that were sent and answered between two times.
pub fn count_between(calls: &[Call], outcome: Outcome, from: f64, to: f64) -> usize {
    let inside = calls.iter().filter(|call| call.sent >= from && call.answered <= to);
    inside.filter(|call| call.outcome == outcome).count()
}

/// The longest delay of a call, in seconds. Where it is long, calls that were meant to be
/// apart reached the servers together.
pub fn longest_stop(calls: &[Call]) -> f64 {
    let answered = calls.iter().filter(|call| call.outcome != Outcome::Lost);
    answered.map(|call| call.answered - call.due).fold(0.0, f64::max)
}

/// The most that a window holds beyond `per_second` times its length, over all windows
/// from 100 ms to 10 s. A call that was sent and answered inside of a window was admitted
/// inside of it, whatever the server's clock says.
pub fn most_above(calls: &[Call], per_second: u32) -> f64 {
    let mut admitted: Vec<_> = calls.iter().filter(|call| call.outcome == Outcome::Admitted).collect();
    admitted.sort_by(|one, other| one.answered.total_cmp(&other.answered));
    let mut most: f64 = 0.0;
    for first in &admitted {
        let mut inside = 0.0;
        for call in admitted.iter().filter(|call| call.sent >= first.sent) {
            let length = (call.answered - first.sent).max(SHORTEST);
            if length > LONGEST {
                break;
            }
            inside += 1.0;
            most = most.max(inside - length * f64::from(per_second));
        }
    }
    most
}

/// The value of a metric without labels, or with some, at a replica.
pub async fn metric(replica: &Replica, name: &str, label: &str) -> anyhow::Result<f64> {
    let (_, body) = http::get(&replica.admin, "/metrics").await?;
    let is_it = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
    let values = body.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

#[test]
fn the_window_that_holds_most_is_found() {
    let call = |sent, answered, outcome| Call { due: sent, sent, answered, outcome };
    let mut calls: Vec<_> = (0..10).map(|n| f64::from(n) / 10.0).collect::<Vec<_>>();
    calls.extend([5.0; 7]);
    let calls: Vec<_> = calls.into_iter().map(|at| call(at, at + 0.01, Outcome::Admitted)).collect();
    // 7 calls within 100 ms, at 10 per second.
    assert!((most_above(&calls, 10) - 6.0).abs() < 1e-6);
    let refused: Vec<_> = calls.iter().map(|one| Call { outcome: Outcome::Refused, ..*one }).collect();
    assert!(most_above(&refused, 10).abs() < 1e-6);
    // Slow answers: nobody knows when they were admitted.
    let slow: Vec<_> = calls.iter().map(|one| Call { answered: one.sent + 30.0, ..*one }).collect();
    assert!(most_above(&slow, 10).abs() < 1e-6);
}
