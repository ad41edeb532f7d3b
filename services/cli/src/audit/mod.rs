//! `catrust audit`: who did what, by which right, from where, why, and the proof of it.

mod evidence;
mod list;
mod refusals;

use clap::Subcommand;

use crate::arguments::Connection;
use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List what happened to the CA certificates of an instance, or of an account.
    List(list::List),
    /// List calls that were refused, the newest first.
    Refusals(refusals::Refusals),
    /// Get the proof that an event is in the log, as JSON.
    Prove(evidence::Prove),
    /// Check a proof. Offline: no server is asked.
    VerifyProof(evidence::VerifyProof),
    /// Check an export of the log (`catrust-server export`). Offline: no server is asked.
    VerifyExport(evidence::VerifyExport),
}

/// Carries the command out.
pub async fn run(command: AuditCommand, connection: &Connection, output: &Output) -> Result<(), Failure> {
    let command = match command {
        AuditCommand::VerifyProof(arguments) => return evidence::verify_proof(&arguments, output),
        AuditCommand::VerifyExport(arguments) => return evidence::verify_export(&arguments, output),
        AuditCommand::Prove(arguments) if arguments.is_offline() => {
            return evidence::prove_from_export(&arguments);
        }
        command => command,
    };
    let session = Session::open(connection)?;
    match command {
        AuditCommand::List(arguments) => list::run(arguments, &session, output).await,
        AuditCommand::Refusals(arguments) => refusals::run(arguments, &session, output).await,
        AuditCommand::Prove(arguments) => evidence::prove(&arguments, &session).await,
        AuditCommand::VerifyProof(_) | AuditCommand::VerifyExport(_) => Ok(()),
    }
}
