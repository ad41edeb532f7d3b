//! `config check` and `config schema`.

use std::process::ExitCode;

use super::{ServeArguments, load};
use crate::assemble::system_clock;
use crate::config::Config;
use crate::keys::ServerKeys;

pub(super) fn check(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let config = load(arguments.config.as_deref())?;
    config.validate()?;
    config.check_files()?;
    if config.signing.key_set_file.is_some() {
        ServerKeys::load(&config.signing, system_clock()())?;
    }
    if let Some(notice) = config.database.durability_notice() {
        eprintln!("note: {notice}");
    }
    print!("{}", config.to_toml()?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn schema() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&Config::schema())?);
    Ok(ExitCode::SUCCESS)
}
