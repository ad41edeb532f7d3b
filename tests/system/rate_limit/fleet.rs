//! Three replicas, one limit: the bound of the design, whole, and over a killed replica and
//! a lost NATS.
//!
//! The limit is low, so that the tests prove the rule and not the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use catrust_proto::v1::GetCaCertificateRequest;
use catrust_tests::deployment::{ACCOUNT, Deployment, Identity, Plan, Replica};
use catrust_tests::eventually::eventually;

use super::load::{Call, Outcome, Target, User, count, count_between, longest_stop, metric, most_above};

/// Per second and user.
const LIMIT: u32 = 100;
/// Half a second's worth: the machine may stop that long.
const BURST: u32 = 50;
const REPLICAS: u32 = 3;
const LOAD: Duration = Duration::from_secs(15);
/// The age of news that is allowed for: a round of 50 ms, and as much for a busy machine.
const AGE: f64 = 0.1;

/// `b + (n − 1)·(b + r·d)`.
fn bound() -> f64 {
    f64::from(BURST) + f64::from(REPLICAS - 1) * unknown()
}

/// What one replica admits before another one knows: `b + r·d`.
fn unknown() -> f64 {
    f64::from(BURST) + f64::from(LIMIT) * AGE
}

struct Stage {
    deployment: Deployment,
    replicas: Vec<Replica>,
    there: Vec<Arc<AtomicBool>>,
    request: GetCaCertificateRequest,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let mut plan = Plan::default()
            .set("rate_limit.per_user_per_second", &LIMIT.to_string())
            .set("rate_limit.burst", &BURST.to_string());
        for user in ["spread", "pinned", "busy"] {
            plan = plan.identity(Identity::with_token(user, ACCOUNT, &["mq:*"]));
        }
        let deployment = plan.deploy().await?;
        let mut replicas = Vec::new();
        for name in ["a", "b", "c"] {
            replicas.push(deployment.replica(name).await?);
        }
        let instance = replicas[0].instance().await?;
        let sn = instance.new_ca().await?.sn;
        let there = replicas.iter().map(|_| Arc::new(AtomicBool::new(true))).collect();
        let request = GetCaCertificateRequest { mqtt_instance_id: instance.id, sn };
        let stage = Self { deployment, replicas, there, request };
        stage.gives(1.0, REPLICAS).await?;
        Ok(stage)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        self.replicas.iter().zip(&self.there).collect()
    }

    async fn user(&self, token: &str, targets: &[Target<'_>]) -> anyhow::Result<User> {
        let user = User::new(token, targets, &self.request)?;
        user.warm_up().await?;
        Ok(user)
    }

    /// Three users: two that call every replica in turn, and one that calls the first alone.
    async fn users(&self) -> anyhow::Result<[User; 3]> {
        let all = self.targets();
        let users = [("spread", &all[..]), ("pinned", &all[..1]), ("busy", &all[..])];
        let [spread, pinned, busy] = users.map(|(token, targets)| self.user(token, targets));
        Ok([spread.await?, pinned.await?, busy.await?])
    }

    /// Waits until every running replica gives this share, and hears `heard` others.
    async fn gives(&self, share: f64, heard: u32) -> anyhow::Result<()> {
        let there = self.targets().into_iter().filter(|(_, there)| there.load(Ordering::Relaxed));
        for (replica, _) in there {
            eventually(Duration::from_secs(20), &format!("a share of {share}"), async || {
                let found = metric(replica, "catrust_rate_limiter_share", "").await;
                let hears = metric(replica, "catrust_rate_limiter_replicas", "heard").await;
                match (found, hears) {
                    (Ok(found), Ok(hears)) if (found - share).abs() < 1e-6 && hears >= f64::from(heard) => {
                        Ok(())
                    }
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
        }
        Ok(())
    }
}

fn report(name: &str, calls: &[Call]) {
    println!(
        "{name}: {} admitted, {} refused, {} lost; at most {:.1} above {LIMIT}/s; held up {:.0} ms at most",
        count(calls, Outcome::Admitted),
        count(calls, Outcome::Refused),
        count(calls, Outcome::Lost),
        most_above(calls, LIMIT),
        1e3 * longest_stop(calls)
    );
}

/// What became of the calls of three users, and what else is known of a run.
type Run<T> = ([Vec<Call>; 3], T);

/// Runs a scenario, and runs it again where the machine stood still: calls that were sent
/// apart then reach the servers together, above the limit, and the run proves nothing.
async fn undisturbed<T>(scenario: impl AsyncFn() -> anyhow::Result<Run<T>>) -> anyhow::Result<Run<T>> {
    let bearable = 0.6 * f64::from(BURST) / f64::from(LIMIT);
    for _ in 0..3 {
        let (calls, more) = scenario().await?;
        let stop = longest_stop(&calls[0]).max(longest_stop(&calls[1]));
        for (name, calls) in ["spread", "pinned", "busy"].iter().zip(&calls) {
            report(name, calls);
        }
        if stop <= bearable {
            return Ok((calls, more));
        }
        println!("again: a call was held up for {stop:.2} s");
    }
    anyhow::bail!("the machine stopped for longer than {bearable} s in every run")
}

impl Stage {
    /// Two users call at nine tenths of the limit, one at five times the limit, while `meanwhile`
    /// happens.
    async fn load<T>(users: &[User; 3], began: Instant, meanwhile: impl Future<Output = T>) -> Run<T> {
        let [spread, pinned, busy] = users;
        let (spread, pinned, busy, outcome) = tokio::join!(
            spread.offer(LIMIT * 9 / 10, began, LOAD),
            pinned.offer(LIMIT * 9 / 10, began, LOAD),
            busy.offer(LIMIT * 5, began, LOAD),
            meanwhile
        );
        ([spread, pinned, busy], outcome)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_limit_for_three_replicas_over_the_death_of_one() -> anyhow::Result<()> {
    let ([spread, pinned, busy], mut stage) = undisturbed(async || {
        let mut stage = Stage::set().await?;
        let users = stage.users().await?;
        let victim = stage.replicas.pop().expect("three replicas");
        let there = stage.there[2].clone();
        let killing = async {
            tokio::time::sleep(LOAD / 2).await;
            there.store(false, Ordering::Relaxed);
            victim.server.kill();
        };
        let (calls, ()) = Stage::load(&users, Instant::now(), killing).await;
        Ok((calls, stage))
    })
    .await?;
    assert_eq!(count(&spread, Outcome::Refused), 0, "a user at nine tenths of the limit, at all replicas");
    assert_eq!(count(&pinned, Outcome::Refused), 0, "a user at nine tenths of the limit, at one replica");
    // What the dead one admitted last was never told.
    let bound = bound() + unknown();
    assert!(most_above(&busy, LIMIT) <= bound, "{} above, bound {bound}", most_above(&busy, LIMIT));
    let long_run = f64::from(LIMIT) * LOAD.as_secs_f64();
    let admitted = count(&busy, Outcome::Admitted) as f64;
    assert!(admitted >= 0.9 * long_run, "{admitted} of {long_run}: who is over the limit still gets it");
    assert!(admitted <= long_run + bound, "{admitted}");

    // A replica that is started again is another one, and the dead one is forgotten.
    let again = stage.deployment.replica("c").await?;
    stage.there[2].store(true, Ordering::Relaxed);
    stage.replicas.push(again);
    stage.gives(1.0, REPLICAS).await?;
    let known = metric(&stage.replicas[0], "catrust_rate_limiter_replicas", "known").await?;
    assert!((3.0..=4.0).contains(&known), "{known}");
    Ok(())
}

/// Times of an outage, in seconds since the load began.
struct Outage {
    cut: f64,
    /// Every replica gives its share by then.
    shared: f64,
    restored: f64,
    whole: f64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_the_shares_make_the_limit_and_with_it_the_limit_is_whole_again() -> anyhow::Result<()> {
    let (calls, Outage { cut, shared, restored, whole }) = undisturbed(async || {
        let mut stage = Stage::set().await?;
        let users = stage.users().await?;
        let began = Instant::now();
        let now = || began.elapsed().as_secs_f64();
        let outage = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            stage.deployment.nats_mut().kill();
            let cut = now();
            stage.gives(1.0 / f64::from(REPLICAS), 1).await?;
            let shared = now();
            tokio::time::sleep(Duration::from_secs(4)).await;
            let restored = now();
            stage.deployment.nats_mut().restart().await?;
            stage.gives(1.0, REPLICAS).await?;
            anyhow::Ok(Outage { cut, shared, restored, whole: now() })
        };
        let (calls, outage) = Stage::load(&users, began, outage).await;
        Ok((calls, outage?))
    })
    .await?;
    let [spread, pinned, busy] = calls;
    println!(
        "NATS lost at {cut:.2} s, shares by {shared:.2} s; back at {restored:.2} s, whole by {whole:.2} s"
    );
    assert_eq!(count(&spread, Outcome::Refused), 0, "the shares of a user of all replicas make the limit");
    let refused = count(&pinned, Outcome::Refused);
    assert_eq!(
        count_between(&pinned, Outcome::Refused, cut, whole + 1.0),
        refused,
        "only while NATS is away"
    );
    let per_second = count_between(&pinned, Outcome::Admitted, shared, restored) as f64 / (restored - shared);
    let share = f64::from(LIMIT) / f64::from(REPLICAS);
    println!("pinned, without NATS: {per_second:.1}/s of a share of {share:.1}/s");
    // Beyond its share it may have its part of the burst.
    let most = share + f64::from(BURST) / f64::from(REPLICAS) / (restored - shared) + 1.0;
    assert!((0.8 * share..=most).contains(&per_second), "{per_second}");

    let bound_over_loss = 2.0 * bound();
    let above = most_above(&busy, LIMIT);
    assert!(above <= bound_over_loss, "{above} above, bound {bound_over_loss}");
    let within: Vec<_> =
        busy.iter().copied().filter(|call| call.sent >= shared && call.answered <= restored).collect();
    let above = most_above(&within, LIMIT);
    println!("busy, without NATS: at most {above:.1} above {LIMIT}/s");
    assert!(above <= f64::from(BURST + REPLICAS), "{above} above while there are only shares");
    Ok(())
}

/// The worst case of the bound: an idle user at all replicas at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_at_all_replicas_has_a_burst_of_each_and_pays_for_it() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    let [_, _, busy] = stage.users().await?;
    let began = Instant::now();
    let herd_size = 2 * BURST * REPLICAS;
    let mut calls = busy.herd(herd_size, began).await;
    let herd = count(&calls, Outcome::Admitted);
    let after = busy.offer(LIMIT * 3, began, Duration::from_secs(5)).await;
    let sent_after = after.len() as f64;
    calls.extend(after);
    report("herd", &calls);
    println!("{herd} of a herd of {herd_size} admitted; bound {}", bound());
    let above = most_above(&calls, LIMIT);
    assert!(above >= f64::from(BURST) - 1.0, "{above}: an idle user has its burst");
    assert!(above <= bound(), "{above} above, bound {}", bound());
    let long_run = f64::from(LIMIT) * 5.0;
    assert!(sent_after > long_run + bound(), "more is offered than may pass: {sent_after}");
    let admitted = count(&calls, Outcome::Admitted) as f64;
    assert!(admitted <= long_run + bound(), "{admitted}: what was had too early is paid for");
    Ok(())
}

/// A NATS that hangs does not break its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nats_that_hangs_is_noticed() -> anyhow::Result<()> {
    let stage = Stage::set().await?;
    stage.deployment.nats().pause();
    stage.gives(1.0 / f64::from(REPLICAS), 1).await?;
    stage.deployment.nats().resume();
    stage.gives(1.0, REPLICAS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_leaves_is_not_waited_for() -> anyhow::Result<()> {
    let mut stage = Stage::set().await?;
    let leaving = stage.replicas.pop().expect("three replicas");
    leaving.server.signal(catrust_tests::process::Signal::TERM);
    leaving.server.ended(Duration::from_secs(30)).await?;
    for replica in &stage.replicas {
        // Sooner than silence would be noticed.
        eventually(Duration::from_secs(3), "two replicas are known", async || {
            match metric(replica, "catrust_rate_limiter_replicas", "known").await {
                Ok(2.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_never_hear_each_other_give_what_the_setting_says() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .set("rate_limit.per_user_per_second", "30")
        .set("rate_limit.burst", "30")
        .set("rate_limit.replicas", "3");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let user = replica.operator()?;
    let request = catrust_proto::v1::ListInstancesRequest::default();
    let reply = user.instances.clone().list_instances(request).await?;
    let policy = reply.metadata().get("ratelimit-policy").expect("a policy").to_str()?;
    assert_eq!(policy, "\"user\";q=10;w=1;catrust-burst=10");
    Ok(())
}
