//! Seeded runs of faults against a real site, until the time is up; exits with 1 at the first
//! violation. `--seed N` begins with that seed, `--seconds S` is the length of all runs
//! together, `--faults A,B` draws from these alone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use catrust_tests::faults::fault::Fault;
use catrust_tests::faults::run::{RunPlan, run};

/// Length of one run, so that a seed that shows something can be repeated in that time.
const RUN: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    catrust_tests::process::be_quiet();
    let (mut seed, mut seconds, mut faults) = (rand::random::<u32>().into(), 60, Fault::ALL.to_vec());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--seed" => seed = value.parse().context("--seed takes a number")?,
            "--seconds" => seconds = value.parse().context("--seconds takes a number")?,
            "--faults" => {
                let named =
                    |name| Fault::named(name).with_context(|| format!("{name} is none of {:?}", Fault::ALL));
                faults = value.split(',').map(named).collect::<Result<_, _>>()?;
            }
            _ => bail!("unknown argument {word}; there are --seed, --seconds and --faults"),
        }
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        let length = RUN.min(until.saturating_duration_since(Instant::now())).max(Duration::from_secs(10));
        println!("seed {seed}, {} s ...", length.as_secs());
        let report = run(RunPlan { seed, length, faults: faults.clone() }).await?;
        println!("{}\ntraces: {}", report.summary, report.traces.display());
        if !report.violations.is_empty() {
            report.violations.iter().for_each(|violation| println!("VIOLATION {violation}"));
            return Ok(ExitCode::FAILURE);
        }
        if Instant::now() >= until {
            return Ok(ExitCode::SUCCESS);
        }
        seed += 1;
    }
}
