//! Faults against a real site, in a part that is short enough for every change. `make faults`
//! runs longer, with other seeds.

use std::time::Duration;

use catrust_tests::faults::fault::Fault;
use catrust_tests::faults::run::{RunPlan, run};

/// Always the same, so that a failure is one of the change at hand.
const SEED: u64 = 20_261_125;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_callers_and_devices_see_under_faults_is_untrue() -> anyhow::Result<()> {
    let plan = RunPlan { seed: SEED, length: Duration::from_secs(40), faults: Fault::ALL.to_vec() };
    let report = run(plan).await?;
    println!("{}\ntraces: {}", report.summary, report.traces.display());
    anyhow::ensure!(report.violations.is_empty(), "{}: {:#?}", report.summary, report.violations);
    Ok(())
}
