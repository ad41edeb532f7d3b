//! The rate limiter's memory with a million users, and with five million: a process of its
//! own, since its resident memory is what is measured.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use catrust_limiter::UserLimiter;

const MAX_USERS: usize = 1_000_000;
const BURST: u32 = 100;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the state of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident memory");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number of kB") * 1024
}

/// Time stands still, so that no bucket drains.
#[test]
fn a_million_users_fit_and_five_million_take_no_more_and_push_nobody_out() {
    let (rate, burst) = (NonZeroU32::new(500).unwrap(), NonZeroU32::new(BURST).unwrap());
    let limiter = UserLimiter::new(rate, burst, MAX_USERS, [3; 32], Instant::now());
    let now = Duration::from_secs(1);
    let before = resident_bytes();
    let megabytes = || (resident_bytes() - before) as f64 / 1e6;

    let hot: Vec<String> = (0..100).map(|user| format!("hot-{user}")).collect();
    let passed = |user: &str| (0..2 * BURST).filter(|_| limiter.check(user, now).is_ok()).count();
    assert!(hot.iter().all(|user| passed(user) == BURST as usize));

    for user in hot.len()..MAX_USERS {
        limiter.check(&format!("user-{user}"), now).unwrap();
    }
    let swept = limiter.sweep(now);
    let million = megabytes();
    println!("1 M users: {million:.1} MB, {swept:?}");
    assert_eq!((swept.users, swept.met_shared), (MAX_USERS, 0), "each has a bucket of its own");
    assert!(million <= 64.0, "{million} MB");

    // Each a new name: what somebody would do who wants the others' buckets forgotten.
    let admitted = (0..4_000_000).filter(|user| limiter.check(&format!("new-{user}"), now).is_ok()).count();
    let swept = limiter.sweep(now);
    let five_million = megabytes();
    println!("5 M users: {five_million:.1} MB, {swept:?}, {admitted} of 4 M new ones admitted");
    assert!(five_million <= 64.0, "{five_million} MB");
    let most_buckets = MAX_USERS + MAX_USERS / 16 + 256;
    assert!(swept.users <= most_buckets, "{swept:?}");
    // Those with a bucket of their own, and a burst for each of the 1,024 shared ones.
    assert!(admitted <= most_buckets - MAX_USERS + 1_024 * BURST as usize, "{admitted}");
    assert!(hot.iter().all(|user| passed(user) == 0), "a spent bucket stays spent");

    // All have drained a second later: everybody is as new, and the memory goes back.
    let later = now + Duration::from_secs(2);
    assert_eq!(limiter.sweep(later).users, 0);
    assert!(limiter.check("hot-1", later).is_ok());
}
