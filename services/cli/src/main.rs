//! `catrust`: the contract from a terminal.
//!
//! A file per noun ([`instance`], [`ca`], [`watch`], [`fleet`], [`bundle`], [`audit`]), each with its
//! arguments, its calls and its tables; [`policy`] and [`keys`] call nobody: the one asks the
//! policies as a server would, the other makes keys and sets of them; [`nats_key`] makes a login to NATS. [`session`] connects and
//! retries, [`failure`] maps what went wrong to an exit code, [`output`] prints. Knows the contract
//! and nothing of the server's inside.
//!
//! Exit codes: 0 done, 1 refused (the code on stderr), 2 usage, 3 unreachable.

mod arguments;
mod audit;
mod bundle;
mod ca;
mod ca_change;
mod failure;
mod fleet;
mod instance;
mod keys;
mod nats_key;
mod output;
mod policy;
mod propagation_watch;
mod session;
mod spelling;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(Failure::Usage(format!("cannot start: {error}"))),
    };
    match outcome {
        // The reader of our output has had enough (`catrust ca list | head`).
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("catrust: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output::new(arguments.output);
    // Works offline: neither a server nor a token is looked for.
    let command = match arguments.command {
        Command::Policy(command) => return policy::run(command, &output),
        Command::Keys(command) => return keys::run(&command, &output),
        // Works offline in part.
        Command::Audit(command) => return audit::run(command, &arguments.connection, &output).await,
        Command::NatsKey(arguments) => return nats_key::run(&arguments),
        command => command,
    };
    let session = Session::open(&arguments.connection)?;
    match command {
        Command::Instance(command) => instance::run(command, &session, &output).await,
        Command::Ca(command) => ca::run(command, &session, &output).await,
        Command::Watch(command) => watch::run(command, &session, &output).await,
        Command::Bundle(command) => bundle::run(command, &session, &output).await,
        Command::Fleet(command) => fleet::run(command, &session, &output).await,
        Command::Audit(command) => audit::run(command, &arguments.connection, &output).await,
        Command::Policy(command) => policy::run(command, &output),
        Command::Keys(command) => keys::run(&command, &output),
        Command::NatsKey(arguments) => nats_key::run(&arguments),
    }
}
