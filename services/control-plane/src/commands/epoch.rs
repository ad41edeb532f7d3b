//! `epoch status`: where the log ends, where witnesses say that it ended, and what is missing.
//! `epoch begin`: the way out, where the end is lost for good.
//!
//! A witness is what a server signed: a message by no key that is believed says nothing.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use catrust_domain::log_epoch::{LostChange, LostFate};
use catrust_domain::{EpochInForce, LogHead};
use catrust_event_store::BegunEpoch;
use clap::{Args, Subcommand};

use super::{DatabaseArguments, database, evidence, serve};
use crate::assemble::system_clock;
use crate::config::Config;
use crate::evidence::Evidence;
use crate::evidence::checkpoint_file::CheckpointFile;
use crate::recovery::{Beginning, RecoveryParts, WitnessedLog, as_fork, spell};

/// Missing changes that are told one by one.
const MOST_TOLD: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum EpochCommand {
    /// Say where the log ends, where the checkpoint file, the NATS streams and what servers stored say
    /// that it ended, what is missing, change by change, and the command that begins a new epoch.
    /// Reads alone. Exits with 1 where something is missing.
    Status(EpochArguments),
    /// Begin a new log epoch: what was lost is given up, and of each CA certificate the stricter of what
    /// the log and what witnesses have comes into force, in one transaction. Asks before. Exits with
    /// 1 where it did not begin. Replicas need no restart.
    Begin(BeginArguments),
}

/// Arguments of `epoch status`.
#[derive(Debug, Args)]
pub(super) struct EpochArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// File of signed checkpoints, instead of `audit.checkpoint_file`.
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
}

/// Arguments of `epoch begin`.
#[derive(Debug, Args)]
pub(super) struct BeginArguments {
    #[command(flatten)]
    common: EpochArguments,
    /// The last row that is kept, as `status` prints it. Refused where the log has another one there.
    #[arg(long, value_name = "POSITION:HASH", value_parser = as_fork)]
    fork: LogHead,
    /// Why; it is recorded in the log.
    #[arg(long)]
    reason: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Go on without the NATS streams, because they are gone for good: inactivations that only they
    /// still show are lost.
    #[arg(long)]
    without_streams: bool,
}

pub(super) async fn status(arguments: EpochArguments) -> anyhow::Result<ExitCode> {
    let config = database::settings(&arguments.database)?;
    let parts = recovery(&config, &arguments).await?;
    let testimony = look(&parts).await?;
    println!();
    if !testimony.is_set_back() {
        println!("No witness contradicts the log.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("The log was set back. Nothing was changed by this command; see deploy/RECOVERY.md.");
    println!("Where the end is lost for good, and the above is what is to become of it, begin a new epoch:");
    println!();
    println!("  catrust-server epoch begin {} --reason TEXT", line(&arguments, &testimony.fork));
    Ok(ExitCode::FAILURE)
}

pub(super) async fn begin(arguments: BeginArguments) -> anyhow::Result<ExitCode> {
    let BeginArguments { common, fork, reason, yes, without_streams } = arguments;
    let config = database::settings(&common.database)?;
    let mut parts = recovery(&config, &common).await?;
    if without_streams {
        parts.streams = None;
    }
    parts.check().await?;
    let testimony = look(&parts).await?;
    println!();
    if !yes && !agreed()? {
        println!("Nothing was changed.");
        return Ok(ExitCode::FAILURE);
    }
    let beginning = Beginning { fork, reason, actor: operator() };
    match parts.begin(&testimony, beginning).await? {
        BegunEpoch::Begun { epoch, end, made_again, lost } => {
            tell_begun(&parts, &config, &epoch, &end, made_again, &lost);
            Ok(ExitCode::SUCCESS)
        }
        BegunEpoch::Ended { epoch } => {
            println!(
                "Epoch {} has begun meanwhile, at position {}: nothing was changed.",
                epoch.epoch, epoch.position
            );
            Ok(ExitCode::FAILURE)
        }
        BegunEpoch::Moved { now } => {
            println!(
                "The log, or what is known against it, has changed meanwhile: it ends at position {} now.",
                now.end.position
            );
            println!("Nothing was changed; look again with `catrust-server epoch status`.");
            Ok(ExitCode::FAILURE)
        }
        BegunEpoch::Refused { reason } => bail!("the epoch was not begun: {reason}"),
    }
}

async fn recovery(config: &Config, arguments: &EpochArguments) -> anyhow::Result<RecoveryParts> {
    let keys = evidence::server_keys(config, &arguments.database)
        .context("no signing key says which messages are true: set signing.key_file")?;
    let store = database::open_existing(config, Arc::clone(&keys) as _).await?;
    let path = arguments.checkpoints.as_ref().or(config.audit.checkpoint_file.as_ref());
    let last = path.map(|path| CheckpointFile::open(path, &keys.on_record())).transpose()?;
    let known =
        Evidence::new(Arc::clone(&store) as _, Arc::clone(keys.active()), config.audit.origin.as_deref());
    let checkpoint = last.and_then(|(_, last)| last).and_then(|last| {
        let epoch = known.epoch_of(&last.checkpoint)?;
        Some((epoch, last.checkpoint.size, last.note))
    });
    let streams = serve::feed(config).await?.map(Arc::new);
    Ok(RecoveryParts { store, keys, streams, checkpoint, clock: system_clock() })
}

/// Hears all witnesses, and prints what they say and what would become of it.
async fn look(parts: &RecoveryParts) -> anyhow::Result<WitnessedLog> {
    let testimony = parts.hear().await?;
    let WitnessedLog { stand, fork, evidence, .. } = &testimony;
    println!("log         {}", parts.store.log_id());
    println!("epoch       {}", stand.epoch.epoch);
    println!("ends at     position {}, hash {}", stand.end.position, stand.end.hash);
    println!("fork        position {}, hash {}: what is known agrees up to there", fork.position, fork.hash);
    match &parts.checkpoint {
        Some((epoch, size, _)) if *epoch == stand.epoch.epoch => {
            println!("checkpoint  position {size}: {}", told(size.saturating_sub(stand.end.position)));
        }
        Some((epoch, size, _)) => println!("checkpoint  position {size} of epoch {epoch}"),
        None => println!("checkpoint  none of this log by a known key (audit.checkpoint_file)"),
    }
    match (&parts.streams, &testimony.furthest) {
        (None, _) => println!("streams     none (nats.url)"),
        (Some(_), None) => println!("streams     nothing of this log and epoch that a server signed"),
        (Some(_), Some((position, name))) => {
            println!("streams     position {position} in {name}: {}", told(testimony.lost.len() as u64));
        }
    }
    for (evidence, verdict) in evidence {
        println!(
            "evidence    {evidence}: {}",
            if verdict.halts() { "the log has not" } else { "no contradiction" }
        );
    }
    let fates = testimony.foretell(&*parts.store).await?;
    for (lost, fate) in testimony.lost.iter().zip(&fates).take(MOST_TOLD) {
        println!("  missing   position {}: {}: {}", lost.position, spell(lost), fate.text);
    }
    if testimony.lost.len() > MOST_TOLD {
        println!("  missing   {} more", testimony.lost.len() - MOST_TOLD);
    }
    Ok(testimony)
}

fn told(missing: u64) -> String {
    if missing == 0 { "the log has it".to_owned() } else { format!("the log lacks {missing} events") }
}

/// The arguments that say which log is meant, and where it is kept.
fn line(arguments: &EpochArguments, fork: &LogHead) -> String {
    let EpochArguments { database: DatabaseArguments { config, data_dir }, checkpoints } = arguments;
    let files = [("config", config), ("data-dir", data_dir), ("checkpoints", checkpoints)];
    let named =
        files.iter().filter_map(|(name, path)| Some(format!("--{name} {} ", path.as_ref()?.display())));
    format!("{}--fork {}:{}", named.collect::<String>(), fork.position, fork.hash)
}

/// Asks on the terminal.
fn agreed() -> anyhow::Result<bool> {
    let input = std::io::stdin();
    anyhow::ensure!(
        input.is_terminal(),
        "there is no terminal to ask on: say --yes where the above is wanted"
    );
    print!("Give up what is missing, and begin a new epoch? Type yes: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

/// Who runs this command, for the record.
fn operator() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    format!("{}@{}", user.as_deref().unwrap_or("unknown"), host.as_deref().map_or("unknown", str::trim))
}

fn tell_begun(
    parts: &RecoveryParts,
    config: &Config,
    epoch: &EpochInForce,
    end: &LogHead,
    made_again: u64,
    lost: &[LostChange],
) {
    println!(
        "Epoch {} has begun at position {}; the log ends at position {}.",
        epoch.epoch, epoch.position, end.position
    );
    println!("made again  {made_again} events");
    let left = lost.iter().filter(|change| change.fate != LostFate::MadeAgain);
    for LostChange { position, instance_id, sn, event_type, text, .. } in left.take(MOST_TOLD) {
        let sn = sn.as_ref().map(|sn| format!(" of CA certificate {sn}")).unwrap_or_default();
        println!("  not       position {position}: {event_type}{sn} in {instance_id}: {text}");
    }
    let log = config.audit.origin.clone().unwrap_or_else(|| format!("catrust/log/{}", parts.store.log_id()));
    println!("witnesses   of checkpoints take {log}/{} for a new log, with the same key", epoch.epoch);
    println!();
    println!(
        "Replicas and brokers go on by themselves. Look at `/readyz` of each replica, at `catrust fleet`, and run:"
    );
    println!("  catrust-server verify --stream");
    println!("  catrust-server stream list");
}
