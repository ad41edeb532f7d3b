//! What a check of the rate limit costs, and what a million users take:
//!
//! ```text
//! cargo run --release -p catrust-limiter --example figures
//! ```

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use catrust_limiter::UserLimiter;

const USERS: usize = 1_000_000;
const CHECKS: usize = 4_000_000;

fn limiter() -> UserLimiter {
    let (rate, burst) = (NonZeroU32::new(500), NonZeroU32::new(100));
    let (rate, burst) = (rate.unwrap_or(NonZeroU32::MIN), burst.unwrap_or(NonZeroU32::MIN));
    UserLimiter::new(rate, burst, USERS, [3; 32], Instant::now())
}

fn main() {
    // Names as in certificates, made beforehand: they are there when a call comes.
    let names: Vec<String> =
        (0..USERS).map(|user| format!("spiffe://example.org/tenant/{user}/service")).collect();
    for users in [1, 1_000, USERS] {
        let limiter = limiter();
        let one = per_check(&limiter, &names[..users], 1);
        let two = per_check(&limiter, &names[..users], 2);
        println!("{users:>9} users: {one:>5.0} ns per check, {two:>5.0} ns with two threads");
    }
    let limiter = limiter();
    let before = resident_bytes();
    for name in &names {
        // Time stands still, so that no bucket drains.
        let _ = limiter.check(name, Duration::ZERO);
    }
    let megabytes = resident_bytes().saturating_sub(before) as f64 / 1e6;
    println!("{USERS:>9} users: {megabytes:>5.1} MB");
    let started = Instant::now();
    let swept = limiter.sweep(Duration::ZERO);
    println!("{:>9} users: swept in {:.1} ms", swept.users, started.elapsed().as_secs_f64() * 1e3);
}

/// Nanoseconds, as one of `threads` sees it; reading the clock is part of it.
fn per_check(limiter: &UserLimiter, names: &[String], threads: usize) -> f64 {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                // Far apart, so that a million users do not come from the cache.
                let mut at = thread * 7_919;
                for _ in 0..CHECKS {
                    at = (at + 104_729) % names.len();
                    let _ = std::hint::black_box(limiter.check(&names[at], limiter.now()));
                }
            });
        }
    });
    started.elapsed().as_nanos() as f64 / CHECKS as f64
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or_default() * 1024
}
