//! `catrust keys vouch`: the next key set, signed with the root key.

use std::path::PathBuf;

use catrust_proto::{Timestamp as Time, v1 as proto};
use catrust_signing::canonical::micros;
use catrust_signing::{KeySet, Signed as _, SigningKey, Timestamp, TrustKeys, timestamp};
use clap::Args;

use super::files::{self, now};
use super::show;
use crate::failure::Failure;
use crate::output::Printer;
use crate::spelling;

const DAY: i64 = 86_400;

#[derive(Debug, Args)]
pub(crate) struct VouchArguments {
    /// Private root key (PEM).
    #[arg(long, value_name = "FILE")]
    root_key: PathBuf,
    /// Key set: the one before where it is there, and the next one afterwards.
    #[arg(long, value_name = "FILE")]
    set: PathBuf,
    /// Public key (PEM) to add, or whose validity to renew; several by giving it again.
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// When the validity of the added keys begins (RFC 3339); now by default.
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time, requires = "add")]
    not_before: Option<Time>,
    /// Days of validity of the added keys.
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = days())]
    valid_days: u32,
    /// When the validity of the added keys ends (RFC 3339), in place of --valid-days.
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time, conflicts_with = "valid_days")]
    not_after: Option<Time>,
    /// Name of a key that is not to be believed any more, nor what rests on it; several.
    #[arg(long, value_name = "KEY_ID")]
    revoke: Vec<String>,
    /// Name of a key to leave out: once nobody signs with it and its messages are gone.
    #[arg(long, value_name = "KEY_ID")]
    drop: Vec<String>,
    /// Days until the set expires: how long somebody can hold the next one back.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = days())]
    expires_days: u32,
    /// When the set expires (RFC 3339), in place of --expires-days.
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time, conflicts_with = "expires_days")]
    expires_at: Option<Time>,
    /// Version of the set, where the one before is lost: above every version that agents
    /// have seen.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=3_650)
}

pub(crate) fn run(command: &VouchArguments, output: &Printer) -> Result<(), Failure> {
    let root = files::private_key(&command.root_key)?;
    let before = match files::read_set(&command.set)? {
        Some(message) => Some(verified(command, &root, message)?),
        None => None,
    };
    let mut next = next(command, before.as_ref(), now())?;
    next.sign(&root).map_err(|error| Failure::Usage(error.to_string()))?;
    let set = verified(command, &root, next)?;
    let text =
        serde_json::to_string_pretty(set.message()).map_err(|error| Failure::Usage(error.to_string()))?;
    files::replace(&command.set, &(text + "\n"))?;
    output.reply(set.message(), |_| show::text(&set, now()))
}

fn verified(command: &VouchArguments, root: &SigningKey, message: proto::KeySet) -> Result<KeySet, Failure> {
    KeySet::verified(message, &TrustKeys::from(root))
        .map_err(|error| Failure::Usage(format!("{}: {}", command.set.display(), show::chain(&error))))
}

/// The set that follows `before`, not signed.
fn next(command: &VouchArguments, before: Option<&KeySet>, now: Timestamp) -> Result<proto::KeySet, Failure> {
    let usage = |text: String| Err(Failure::Usage(text));
    let following = before.map_or(1, |set| set.version() + 1);
    let version = command.version.unwrap_or(following);
    if version < following {
        return usage(format!("version {version} would be refused: the next one is {following}"));
    }
    let mut keys = before.map(|set| set.message().keys.clone()).unwrap_or_default();
    for key in added(command, now)? {
        match keys.iter_mut().find(|known| known.key_id == key.key_id) {
            Some(known) if known.revoked => {
                return usage(format!("the key {} is revoked, for good; make another", key.key_id));
            }
            Some(known) => *known = key,
            None => keys.push(key),
        }
    }
    for key_id in &command.revoke {
        match keys.iter_mut().find(|key| key.key_id == *key_id) {
            Some(key) => key.revoked = true,
            None => return usage(format!("there is no key {key_id} in the set")),
        }
    }
    for key_id in &command.drop {
        match keys.iter().position(|key| key.key_id == *key_id) {
            Some(at) => drop(keys.remove(at)),
            None => return usage(format!("there is no key {key_id} in the set")),
        }
    }
    let expires_at = match &command.expires_at {
        Some(time) => exact("--expires-at", time)?,
        None => now.plus_seconds(i64::from(command.expires_days) * DAY),
    };
    Ok(proto::KeySet {
        version,
        keys,
        issued_at: Some(timestamp(now)),
        expires_at: Some(timestamp(expires_at)),
        signature: None,
    })
}

fn added(command: &VouchArguments, now: Timestamp) -> Result<Vec<proto::EventKey>, Failure> {
    let not_before = match &command.not_before {
        Some(time) => exact("--not-before", time)?,
        None => now,
    };
    let not_after = match &command.not_after {
        Some(time) => exact("--not-after", time)?,
        None => not_before.plus_seconds(i64::from(command.valid_days) * DAY),
    };
    let mut keys = Vec::new();
    for path in &command.add {
        let text = files::read(path)?;
        if text.contains("PRIVATE KEY") {
            return Err(Failure::Usage(format!(
                "{} is a private key; a root key vouches for public ones, and needs no other secret",
                path.display()
            )));
        }
        let public = files::public_keys(std::slice::from_ref(path))?;
        let mut names = public.key_ids();
        let (Some(key_id), None) = (names.next(), names.next()) else {
            return Err(Failure::Usage(format!("{} holds more than one key", path.display())));
        };
        keys.push(proto::EventKey {
            key_id: key_id.to_owned(),
            public_key: public.to_pem(),
            not_before: Some(timestamp(not_before)),
            not_after: Some(timestamp(not_after)),
            revoked: false,
        });
    }
    Ok(keys)
}

fn exact(option: &str, time: &Time) -> Result<Timestamp, Failure> {
    micros(time)
        .map(Timestamp::from_micros)
        .ok_or_else(|| Failure::Usage(format!("{option}: write at most six digits after the second")))
}
