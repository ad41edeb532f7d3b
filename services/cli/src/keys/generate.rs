//! `catrust keys generate`.

use std::path::PathBuf;

use catrust_signing::SigningKey;
use clap::Args;
use serde::Serialize;

use super::files::write_new;
use crate::failure::Failure;
use crate::output::{Printer, fields};

#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    /// File for the private key; made, readable by its owner alone, and never overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the public key, likewise; the private key's name with `.pub.pem` by default.
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
}

#[derive(Serialize)]
struct KeyFiles {
    key_id: String,
    private_key_file: String,
    public_key_file: String,
}

pub(crate) fn run(command: &GenerateArguments, output: &Printer) -> Result<(), Failure> {
    let public = command.public.clone().unwrap_or_else(|| command.out.with_extension("pub.pem"));
    if public == command.out {
        return Err(Failure::Usage("the two keys need a file each".to_owned()));
    }
    let make = || SigningKey::generate_pem().and_then(|pem| Ok((SigningKey::from_pem(&pem)?, pem)));
    let (key, pem) = make().map_err(|error| Failure::Usage(error.to_string()))?;
    // The public one first: it is worth nothing alone, and the other is there only with it.
    write_new(&public, &key.public_key_pem(), 0o644)?;
    write_new(&command.out, &pem, 0o600).inspect_err(|_| drop(std::fs::remove_file(&public)))?;
    let files = KeyFiles {
        key_id: key.key_id().to_owned(),
        private_key_file: command.out.display().to_string(),
        public_key_file: public.display().to_string(),
    };
    output.reply(&files, |made| {
        fields(&[
            ("key id", made.key_id.clone()),
            ("private key", made.private_key_file.clone()),
            ("public key", made.public_key_file.clone()),
        ])
    })
}
