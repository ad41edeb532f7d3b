//! `epoch status`: where the log ends, where witnesses say that it ended, and what is missing.
//!
//! It reads, and changes nothing. A witness is what a server signed, or a stream that only servers
//! can have filled so: a message by no key that is believed says nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use catrust_domain::log_epoch::spell_revision;
use catrust_domain::{LogEpoch, LogHead};
use catrust_event_store::EventStore;
use catrust_proto::v1::{CaCertificateState, LogEvent, TrustChange};
use catrust_publisher::{KnownKeys, SignedRow};
use catrust_trust_feed::nats::stream_name;
use catrust_trust_feed::{NatsFeed, StreamUse};
use clap::{Args, Subcommand};

use super::{DatabaseArguments, database, evidence, serve, stream};
use crate::evidence::Evidence;
use crate::evidence::checkpoint_file::CheckpointFile;

/// Missing changes that are told one by one.
const MOST_TOLD: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(super) enum EpochCommand {
    /// Say where the log ends, where the checkpoint file and the NATS streams say that it ended, and
    /// what is missing, change by change. Reads alone. Exits with 1 where something is missing.
    Status(EpochStatusArguments),
}

/// Arguments of `epoch status`.
#[derive(Debug, Args)]
pub(super) struct EpochStatusArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// File of signed checkpoints, instead of `audit.checkpoint_file`.
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
}

/// A change that a stream has and the log has not.
struct MissingChange {
    position: u64,
    text: String,
}

/// What the streams show.
#[derive(Default)]
struct StreamTestimony {
    /// Furthest position that is signed, and the stream that has it.
    furthest: Option<(u64, String)>,
    missing: Vec<MissingChange>,
    untold: usize,
}

pub(super) async fn status(arguments: EpochStatusArguments) -> anyhow::Result<ExitCode> {
    let config = database::settings(&arguments.database)?;
    let keys = evidence::server_keys(&config, &arguments.database);
    let store = database::open_existing(&config, evidence::notary(&config, &arguments.database)).await?;
    let end = store.head().await?;
    let epoch = *store.epoch().borrow();
    println!("log         {}", store.log_id());
    println!("epoch       {}", epoch.epoch);
    println!("ends at     position {}, hash {}", end.position, end.hash);
    let mut lost = false;

    let path = arguments.checkpoints.as_ref().or(config.audit.checkpoint_file.as_ref());
    match (path, &keys) {
        (Some(path), Some(keys)) => {
            let last = CheckpointFile::open(path, &keys.on_record())?.1;
            let known = Evidence::new(
                Arc::clone(&store) as _,
                Arc::clone(keys.active()),
                config.audit.origin.as_deref(),
            );
            let of_epoch = last.as_ref().and_then(|last| known.epoch_of(&last.checkpoint));
            match (last, of_epoch) {
                (Some(last), Some(of_epoch)) if of_epoch == epoch.epoch => {
                    let size = last.checkpoint.size;
                    let missing = size.saturating_sub(end.position);
                    lost |= missing > 0;
                    println!("checkpoint  position {size} in {}: {}", path.display(), told(missing));
                }
                _ => println!("checkpoint  none of this log and epoch by a known key in {}", path.display()),
            }
        }
        _ => println!("checkpoint  no file (audit.checkpoint_file)"),
    }

    match (serve::feed(&config).await?, keys) {
        (Some(feed), Some(keys)) => {
            let known = KnownKeys::new(keys.active(), keys.follow().borrow().clone());
            let testimony = hear_streams(&*store, &feed, &known, &end, epoch.epoch).await?;
            lost |= !testimony.missing.is_empty();
            tell(&testimony);
        }
        (Some(_), None) => println!("streams     not looked at: no signing key says which messages are true"),
        (None, _) => println!("streams     none (nats.url)"),
    }
    if lost {
        println!();
        println!("The log was set back. Nothing was changed by this command; see deploy/RECOVERY.md.");
        return Ok(ExitCode::FAILURE);
    }
    println!();
    println!("No witness contradicts the log.");
    Ok(ExitCode::SUCCESS)
}

fn told(missing: u64) -> String {
    if missing == 0 { "the log has it".to_owned() } else { format!("the log lacks {missing} events") }
}

fn tell(testimony: &StreamTestimony) {
    match &testimony.furthest {
        Some((position, name)) => {
            let missing = testimony.missing.len() + testimony.untold;
            println!("streams     position {position} in {name}: {}", told(missing as u64));
        }
        None => println!("streams     nothing of this log and epoch that a server signed"),
    }
    for change in &testimony.missing {
        println!("  missing   position {}: {}", change.position, change.text);
    }
    if testimony.untold > 0 {
        println!("  missing   {} more", testimony.untold);
    }
}

/// Reads what all streams keep of this log and epoch. Each keeps the last change of each CA
/// certificate: of those before it nothing is left to tell.
async fn hear_streams(
    store: &dyn EventStore,
    feed: &NatsFeed,
    keys: &KnownKeys,
    end: &LogHead,
    epoch: LogEpoch,
) -> anyhow::Result<StreamTestimony> {
    let mut testimony = StreamTestimony::default();
    for outline in stream::answer(feed).await.context("the streams cannot be read")? {
        if matches!(outline.role, StreamUse::Foreign(_)) {
            continue;
        }
        let mut sequence = 0;
        while let Some(kept) = feed.kept_in(outline.number, sequence).await? {
            sequence = kept.sequence;
            let Some(row) = keys.signed_row(&kept.body) else { continue };
            if row.log_id != store.log_id() || LogEpoch(row.epoch) != epoch {
                continue;
            }
            let name = stream_name(outline.number);
            if testimony.furthest.as_ref().is_none_or(|(position, _)| *position < row.position) {
                testimony.furthest = Some((row.position, name));
            }
            if is_missing(store, &row, end).await? {
                testimony.add(MissingChange { position: row.position, text: describe(&kept.body) });
            }
        }
    }
    testimony.missing.sort_by_key(|change| change.position);
    Ok(testimony)
}

async fn is_missing(store: &dyn EventStore, row: &SignedRow, end: &LogHead) -> anyhow::Result<bool> {
    if row.position > end.position {
        return Ok(true);
    }
    let found = store.read(row.position - 1, 1).await?;
    Ok(!found.first().is_some_and(|found| found.position == row.position && found.hash == row.event_hash))
}

impl StreamTestimony {
    fn add(&mut self, change: MissingChange) {
        if self.missing.iter().any(|known| known.position == change.position) {
            return;
        }
        if self.missing.len() < MOST_TOLD { self.missing.push(change) } else { self.untold += 1 }
    }
}

/// A change for people. The message was verified.
fn describe(body: &[u8]) -> String {
    if let Ok(change) = serde_json::from_slice::<TrustChange>(body) {
        let sn = change.entry.as_ref().map(|entry| entry.sn.as_str()).unwrap_or_default();
        let state = match (change.deleted, change.entry.as_ref().map(catrust_proto::v1::TrustEntry::state)) {
            (true, _) => "deleted",
            (false, Some(CaCertificateState::Inactive)) => "INACTIVE",
            (false, Some(CaCertificateState::Active)) => "ACTIVE",
            (false, _) => "of unknown state",
        };
        return format!(
            "{} of CA certificate {sn} in {}, {} there ({state})",
            change.event_type,
            change.mqtt_instance_id,
            spell_revision(change.revision)
        );
    }
    match serde_json::from_slice::<LogEvent>(body) {
        Ok(event) => format!("{} in {}", event.event_type, event.mqtt_instance_id),
        Err(_) => "something that cannot be read".to_owned(),
    }
}
