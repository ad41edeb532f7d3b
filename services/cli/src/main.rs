//! `catrust`: the contract from a terminal.
//!
//! A file per noun ([`instance`], [`ca`], [`watch`], [`fleet`], [`bundle`], [`audit`]), each with its
//! arguments, its calls and its tables. Three nouns call nobody: [`policy`] asks the policies as a
//! server would, [`keys`] makes keys and sets of them, [`nats_key`] a login to NATS. [`api_client`]
//! connects and retries, [`stream`] follows what the server streams, [`failure`] maps what went
//! wrong to an exit code, [`output`] prints. Knows the contract and nothing of the server's inside.
//!
//! Exit codes: 0 done, 1 refused (the code on stderr), 2 usage, 3 unreachable.

#![warn(unreachable_pub)]

mod api_client;
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
mod spelling;
mod stream;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::api_client::ApiClient;
use crate::arguments::{CommandLine, Noun};
use crate::failure::Failure;
use crate::output::Printer;

fn main() -> ExitCode {
    let arguments = CommandLine::parse();
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

async fn run(arguments: CommandLine) -> Result<(), Failure> {
    let output = Printer::new(arguments.output);
    // Works offline: neither a server nor a token is looked for.
    let command = match arguments.command {
        Noun::Policy(command) => return policy::run(command, &output),
        Noun::Keys(command) => return keys::run(&command, &output),
        // Works offline in part.
        Noun::Audit(command) => return audit::run(command, &arguments.connection, &output).await,
        Noun::NatsKey(arguments) => return nats_key::run(&arguments),
        command => command,
    };
    let api = ApiClient::open(&arguments.connection)?;
    match command {
        Noun::Instance(command) => instance::run(command, &api, &output).await,
        Noun::Ca(command) => ca::run(command, &api, &output).await,
        Noun::Watch(command) => watch::run(command, &api, &output).await,
        Noun::Bundle(command) => bundle::run(command, &api, &output).await,
        Noun::Fleet(command) => fleet::run(command, &api, &output).await,
        Noun::Audit(command) => audit::run(command, &arguments.connection, &output).await,
        Noun::Policy(command) => policy::run(command, &output),
        Noun::Keys(command) => keys::run(&command, &output),
        Noun::NatsKey(arguments) => nats_key::run(&arguments),
    }
}
