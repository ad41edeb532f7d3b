//! `checkpoint` and `export`: evidence by hand.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use catrust_domain::Notary;
use catrust_domain::seal::NoKeys;
use catrust_event_store::{EventLog, EvidenceStore};
use catrust_evidence::{EvidenceRow, ExportFooter, ExportHeader, SignedCheckpoint, SigningKey, TrustKeys};
use clap::Args;
use serde::Serialize;

use super::dev::SIGNING_KEY;
use super::{DatabaseArguments, database};
use crate::assemble::system_clock;
use crate::config::Config;
use crate::evidence::Evidence;
use crate::evidence::checkpoint_file::CheckpointFile;
use crate::keys::ServerKeys;

/// Rows read at once: about 2 MB.
const CHUNK: u32 = 1_000;

/// Arguments of `checkpoint`.
#[derive(Debug, Args)]
pub(super) struct CheckpointArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Append it to this file, too, instead of to audit.checkpoint_file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Where to write it; a new file. Standard output otherwise.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The key that signs: `signing.key_file`, or that of the data directory of `dev`.
pub(super) fn signing_key(config: &Config, arguments: &DatabaseArguments) -> anyhow::Result<SigningKey> {
    let of_dev = arguments.data_dir.as_ref().map(|directory| directory.join(SIGNING_KEY));
    let path = of_dev.or_else(|| config.signing.key_file.clone()).context("signing.key_file is not set")?;
    SigningKey::load(&path).with_context(|| format!("the key {} cannot be used", path.display()))
}

/// The server's key and key set; `None` where they cannot be read.
pub(super) fn server_keys(config: &Config, arguments: &DatabaseArguments) -> Option<Arc<ServerKeys>> {
    let keys = ServerKeys::load(&config.signing, (system_clock())()).ok();
    let of_dev = || signing_key(config, arguments).ok().map(|key| ServerKeys::from(Arc::new(key)));
    keys.or_else(of_dev).map(Arc::new)
}

/// Who is believed about the beginnings of log epochs: the server's keys, else nobody.
pub(super) fn notary(config: &Config, arguments: &DatabaseArguments) -> Arc<dyn Notary> {
    server_keys(config, arguments).map_or_else(|| Arc::new(NoKeys) as _, |keys| keys as _)
}

/// Signs a checkpoint of the log, prints it, and appends it to the file.
pub(super) async fn checkpoint(arguments: CheckpointArguments) -> anyhow::Result<ExitCode> {
    let config = database::settings(&arguments.database)?;
    let path = arguments.file.as_ref().or(config.audit.checkpoint_file.as_ref());
    let key = signing_key(&config, &arguments.database)?;
    let file = path.map(|path| CheckpointFile::open(path, &TrustKeys::from(&key))).transpose()?;
    let (file, last) = file.map_or((None, None), |(file, last)| (Some(file), last));
    let known = last.as_ref().map_or(0, |last| last.checkpoint.size);
    let (_, evidence) = signer(&config, key, last).await?;
    let signed = evidence.checkpoint().await?;
    if let Some(mut file) = file
        && signed.checkpoint.size > known
    {
        file.append(&signed)?;
    }
    print!("{}", signed.note);
    Ok(ExitCode::SUCCESS)
}

/// Writes the whole log with a checkpoint of it as JSON lines.
pub(super) async fn export(arguments: ExportArguments) -> anyhow::Result<ExitCode> {
    let config = database::settings(&arguments.database)?;
    let key = signing_key(&config, &arguments.database)?;
    let (store, evidence) = signer(&config, key, None).await?;
    // By a role that may write nothing.
    let signed = evidence.sign_head().await?;
    let out: Box<dyn Write> = match &arguments.out {
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let file = file.with_context(|| format!("cannot write the new file {}", path.display()))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::BufWriter::new(std::io::stdout().lock())),
    };
    write_export(&*store, &signed, out).await?;
    Ok(ExitCode::SUCCESS)
}

/// What signs a checkpoint of the log, which goes on from `last`.
async fn signer(
    config: &Config,
    key: SigningKey,
    last: Option<SignedCheckpoint>,
) -> anyhow::Result<(Arc<dyn EvidenceStore>, Evidence)> {
    let key = Arc::new(key);
    let notary = Arc::new(ServerKeys::from(Arc::clone(&key)));
    let store: Arc<dyn EvidenceStore> = database::open_existing(config, notary).await?;
    let evidence = Evidence::new(Arc::clone(&store), key, config.audit.origin.as_deref());
    if let Some(last) = last {
        evidence.remember(last);
    }
    Ok((store, evidence))
}

async fn write_export(
    log: &dyn EventLog,
    signed: &SignedCheckpoint,
    mut out: impl Write,
) -> anyhow::Result<()> {
    line(&mut out, &ExportHeader::new(log.log_id()))?;
    let mut after = 0;
    while after < signed.checkpoint.size {
        for event in log.read(after, CHUNK).await? {
            anyhow::ensure!(event.position == after + 1, "position {} is missing in the log", after + 1);
            if event.position > signed.checkpoint.size {
                break;
            }
            after = event.position;
            line(&mut out, &EvidenceRow::from(event))?;
        }
        anyhow::ensure!(
            log.head().await?.position >= signed.checkpoint.size,
            "the log was cut off meanwhile"
        );
    }
    line(&mut out, &ExportFooter { checkpoint: signed.note.clone() })?;
    out.flush().context("cannot write the export")
}

fn line(out: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value)?;
    writeln!(out, "{text}").context("cannot write the export")
}
