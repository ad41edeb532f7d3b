//! `catrust audit`: who did what, by which right, from where, why, and the proof of it.

mod list;

use clap::Subcommand;

use crate::failure::Failure;
use crate::output::Output;
use crate::session::Session;

/// What to do with the audit trail.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List what happened to the CA certificates of an instance, or of an account.
    List(list::List),
}

/// Carries the command out.
pub async fn run(command: AuditCommand, session: &Session, output: &Output) -> Result<(), Failure> {
    match command {
        AuditCommand::List(arguments) => list::run(arguments, session, output).await,
    }
}
