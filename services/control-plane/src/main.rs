//! `catrust-server`: parse the arguments, run the command, tell how it went.

use std::process::ExitCode;
use std::time::Duration;

use catrust_control_plane::commands::{ServerArguments, run};
use clap::Parser as _;

/// A call makes some hundred small allocations, mostly freed by another thread: the
/// system's allocator took a quarter of the server's time under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long work off the runtime's threads may go on after the command's end.
const LAST_WORK: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    keep_to_small_pages();
    let arguments = ServerArguments::parse();
    // Fails only where a provider is installed already, which nobody else does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("catrust-server: the runtime cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run(arguments));
    // Work that hangs on a disk must not keep a process that has said what it had to.
    runtime.shutdown_timeout(LAST_WORK);
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("catrust-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// An idle server would hold some 25 MB that it never used: the allocator asks for huge
/// pages, and one is taken whole. Where the kernel refuses, that is the whole loss.
fn keep_to_small_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
