//! `catrust nats-key`: makes a login to NATS. Calls nobody.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct NatsKeyArguments {
    /// Where to put the seed, readable by its owner alone; must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes the seed into the file and prints the public key.
pub(crate) fn run(arguments: &NatsKeyArguments) -> Result<(), Failure> {
    let file = arguments.file.display();
    let unusable = |error: &dyn std::fmt::Display| Failure::Usage(format!("cannot write {file}: {error}"));
    let key = nkeys::KeyPair::new_user();
    let seed = key.seed().map_err(|error| unusable(&error))?;
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&arguments.file);
    let written = opened.and_then(|mut file| writeln!(file, "{seed}").and_then(|()| file.sync_all()));
    written.map_err(|error| unusable(&error))?;
    println!("{}", key.public_key());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_seed_is_its_owners_alone_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let arguments = NatsKeyArguments { file: directory.path().join("agent.nk") };
        run(&arguments).unwrap();
        let seed = std::fs::read_to_string(&arguments.file).unwrap();
        assert!(nkeys::KeyPair::from_seed(seed.trim()).is_ok());
        assert_eq!(std::fs::metadata(&arguments.file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(run(&arguments), Err(Failure::Usage(_))), "there is a key already");
        assert_eq!(std::fs::read_to_string(&arguments.file).unwrap(), seed);
    }
}
