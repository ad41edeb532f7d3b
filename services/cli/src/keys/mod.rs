//! `catrust keys`: the keys that sign the feed, and the root key that vouches for them.
//! Offline: a root key belongs on a machine that no server can reach.

mod files;
mod generate;
mod show;
mod vouch;

use clap::Subcommand;

use crate::failure::Failure;
use crate::output::Printer;

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make an Ed25519 key: a root key, or one that signs the feed.
    Generate(generate::GenerateArguments),
    /// Make the next key set: with other keys, or renewed as it is.
    Vouch(vouch::VouchArguments),
    /// Show a key set, or the name of a key.
    Show(show::ShowKeysArguments),
    /// Check a key set as an agent does, and a server's key against it. Exits with 1 where
    /// it would be refused.
    Verify(show::VerifyKeysArguments),
}

pub(crate) fn run(command: &KeysCommand, output: &Printer) -> Result<(), Failure> {
    match command {
        KeysCommand::Generate(command) => generate::run(command, output),
        KeysCommand::Vouch(command) => vouch::run(command, output),
        KeysCommand::Show(command) => show::run(command, output),
        KeysCommand::Verify(command) => show::verify(command, output),
    }
}
