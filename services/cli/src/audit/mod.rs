//! `catrust audit`: who did what, by which right, from where, why, and the proof of it.

mod evidence;
mod list;
mod refusals;

use clap::Subcommand;

use crate::api_client::ApiClient;
use crate::arguments::ConnectionArguments;
use crate::failure::Failure;
use crate::output::Printer;

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List what happened to the CA certificates of an instance, or of an account.
    List(list::ListEventsArguments),
    /// List calls that were refused, the newest first.
    Refusals(refusals::RefusalsArguments),
    /// Get the proof that an event is in the log, as JSON.
    Prove(evidence::ProveArguments),
    /// Check a proof. Offline: no server is asked.
    VerifyProof(evidence::VerifyProofArguments),
    /// Check an export of the log (`catrust-server export`). Offline: no server is asked.
    VerifyExport(evidence::VerifyExportArguments),
}

pub(crate) async fn run(
    command: AuditCommand,
    connection: &ConnectionArguments,
    output: &Printer,
) -> Result<(), Failure> {
    let command = match command {
        AuditCommand::VerifyProof(arguments) => return evidence::verify_proof(&arguments, output),
        AuditCommand::VerifyExport(arguments) => return evidence::verify_export(&arguments, output),
        AuditCommand::Prove(arguments) if arguments.is_offline() => {
            return evidence::prove_from_export(&arguments);
        }
        command => command,
    };
    let api = ApiClient::open(connection)?;
    match command {
        AuditCommand::List(arguments) => list::run(arguments, &api, output).await,
        AuditCommand::Refusals(arguments) => refusals::run(arguments, &api, output).await,
        AuditCommand::Prove(arguments) => evidence::prove(&arguments, &api).await,
        AuditCommand::VerifyProof(_) | AuditCommand::VerifyExport(_) => Ok(()),
    }
}
