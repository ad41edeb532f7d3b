//! `config check` and `config schema`.

use std::process::ExitCode;

use super::{ServeArguments, load};
use crate::config::Config;

pub(super) fn check(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let config = load(arguments.config.as_deref())?;
    config.validate()?;
    config.check_files()?;
    print!("{}", config.to_toml()?);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn schema() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&Config::schema())?);
    Ok(ExitCode::SUCCESS)
}
