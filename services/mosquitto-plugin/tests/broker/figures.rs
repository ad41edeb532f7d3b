//! How fast sessions end. The bounds are far above what an idle machine shows, so that
//! a busy one does not fail them; the figures are printed (`--nocapture`).

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::stage::Stage;
use crate::trust::ACTIVE;

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_within_milliseconds_of_the_request() {
    let mut stage = Stage::new().await;
    let device = stage.device_a("a1");
    let mut spans = Vec::new();
    for _ in 0..40 {
        stage.set_a(ACTIVE).await;
        let session = device.connect(&stage.broker).await;
        let closed = tokio::spawn(session.closed());
        let begin = Instant::now();
        stage.inactivate_a().await;
        let (_, end) = closed.await.unwrap();
        spans.push(end - begin);
    }
    spans.sort();
    let (middle, slow) = (percentile(&spans, 50), percentile(&spans, 99));
    println!("request to end of session, 40 rounds: p50 {middle:?}, p99 {slow:?}");
    assert!(middle < Duration::from_millis(50), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_3000_sessions_end_and_the_other_half_does_not_notice() {
    const EACH: usize = 1500;
    let mut stage = Stage::new().await;
    let (a, b) = (stage.device_a("a"), stage.device_b("b"));
    let (mut cut, mut kept) = (Vec::new(), Vec::new());
    for number in 0..EACH {
        let connect = |name: &str| crate::mqtt::Connect::new(&format!("{name}-{number}"));
        cut.push(a.connect_with(&stage.broker, &connect("a")).await);
        kept.push(b.connect_with(&stage.broker, &connect("b")).await);
    }
    let mut ends = JoinSet::new();
    for session in cut {
        ends.spawn(async move { session.closed().await.1 });
    }
    let begin = Instant::now();
    let response = stage.inactivate_a().await;
    let answered = begin.elapsed();
    assert_eq!((response.kicked, response.open), (EACH as u64, EACH as u64));
    let ends = ends.join_all().await;
    let last = ends.iter().max().unwrap().duration_since(begin);
    println!(
        "half of 3000 sessions: {:.1} ms on the broker's thread, answered after {answered:?}, last end after {last:?}",
        response.ms
    );
    assert!(last < Duration::from_secs(5), "{last:?}");
    for session in &mut kept {
        session.assert_alive().await;
    }
}
