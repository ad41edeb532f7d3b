//! The JetStream stream: its settings, its end, and how both are read.

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, DeleteStreamErrorKind, GetStreamError, GetStreamErrorKind,
    RequestError, RequestErrorKind,
};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{Context, ErrorCode};
use catrust_domain::Timestamp;

use super::{STREAM, wire};
use crate::feed::{FeedError, FeedTail};
use crate::subject::STREAM_SUBJECTS;

/// Oldest server that has what the feed needs.
const OLDEST: (u32, u32) = (2, 9);
/// Oldest server that is recommended.
const RECOMMENDED: (u32, u32) = (2, 10);

/// How long the server remembers message ids. Order rests on expected sequences alone;
/// the ids are for people. A short memory, because one that outlived the messages (a
/// cluster that lost its tail) would answer "duplicate" for what is not there.
const DUPLICATE_WINDOW: std::time::Duration = std::time::Duration::from_secs(5);

/// Refuses servers that are too old.
///
/// # Errors
/// [`FeedError::Unsuitable`].
pub fn check_version(version: &str) -> Result<(), FeedError> {
    let found = major_and_minor(version)
        .ok_or_else(|| FeedError::Unsuitable(format!("the NATS server gives its version as {version:?}")))?;
    if found < OLDEST {
        return Err(FeedError::Unsuitable(format!(
            "the NATS server is version {version}; upgrade it to 2.10 or later (2.9 works)"
        )));
    }
    if found < RECOMMENDED {
        tracing::info!(nats.version = %version, "this NATS server works; 2.10 or later is recommended");
    }
    Ok(())
}

fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The settings, on top of what an operator chose for the rest.
fn settings(base: Config, replicas: usize) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: STREAM_SUBJECTS.map(str::to_owned).to_vec(),
        description: Some("catrust event log; sequence = log position".to_owned()),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_messages: -1,
        max_bytes: -1,
        max_age: std::time::Duration::ZERO,
        max_messages_per_subject: 1,
        max_message_size: -1,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        no_ack: false,
        sealed: false,
        deny_delete: true,
        deny_purge: true,
        allow_rollup: false,
        allow_direct: true,
        ..base
    }
}

/// Gives the stream's state; creates it where it is missing, and mends its settings
/// where they differ.
///
/// # Errors
/// [`FeedError::Unavailable`]; [`FeedError::Unsuitable`] where the settings cannot be
/// mended or the server does not keep them.
pub async fn ensure(jetstream: &Context, replicas: usize) -> Result<Info, FeedError> {
    let info = match jetstream.get_stream(STREAM).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) if is_missing(&error) => {
            let stream =
                jetstream.create_stream(settings(Config::default(), replicas)).await.map_err(refused)?;
            stream.cached_info().clone()
        }
        Err(error) => return Err(unanswered(error)),
    };
    refuse_strangers(&info.config)?;
    let wanted = settings(info.config.clone(), replicas);
    if same(&info.config, &wanted) {
        return Ok(info);
    }
    tracing::warn!(nats.stream = STREAM, "the stream's settings are not catrust's; mending them");
    let mended = jetstream.update_stream(&wanted).await.map_err(refused)?;
    if same(&mended.config, &wanted) {
        return Ok(mended);
    }
    Err(FeedError::Unsuitable(format!(
        "the NATS server does not keep the settings of the stream {STREAM}; compare \
         `nats stream info {STREAM}` with the documentation, or delete the stream"
    )))
}

/// Refuses a stream that holds none of our subjects: it is somebody else's who took the same
/// name, and our settings would delete its messages.
fn refuse_strangers(found: &Config) -> Result<(), FeedError> {
    let ours = |subject: &String| STREAM_SUBJECTS.contains(&subject.as_str());
    if found.subjects.iter().any(ours) {
        return Ok(());
    }
    Err(FeedError::Unsuitable(format!(
        "the NATS account has a stream {STREAM} that is not catrust's: it holds {:?}; give catrust an \
         account of its own, or delete that stream",
        found.subjects
    )))
}

/// Whether two settings are the same in what matters. `allow_direct` is left out: a
/// server without it serves readers through the leader. -1 and 0 both mean no limit.
fn same(found: &Config, wanted: &Config) -> bool {
    let unlimited = |limit: i64| limit <= 0;
    found.subjects == wanted.subjects
        && found.storage == wanted.storage
        && found.retention == wanted.retention
        && found.discard == wanted.discard
        && unlimited(found.max_messages)
        && unlimited(found.max_bytes)
        && unlimited(found.max_message_size.into())
        && found.max_age == wanted.max_age
        && found.max_messages_per_subject == wanted.max_messages_per_subject
        && found.num_replicas == wanted.num_replicas
        && found.duplicate_window == wanted.duplicate_window
        && !found.no_ack
        && !found.sealed
        && found.deny_delete
        && found.deny_purge
        && !found.allow_rollup
}

/// Reads the end of the stream. The state was read before the last message, so that a
/// message that came in between is the end, and one that is missing is missed.
///
/// # Errors
/// [`FeedError::Unavailable`].
pub async fn tail(jetstream: &Context, info: &Info) -> Result<FeedTail, FeedError> {
    let created_at = Timestamp::from_micros(
        i64::try_from(info.created.unix_timestamp_nanos() / 1_000).unwrap_or_default(),
    );
    let (sequence, messages) = (info.state.last_sequence, info.state.messages);
    let lost = FeedTail { sequence, last: None, messages, created_at };
    if sequence == 0 {
        return Ok(lost);
    }
    // By subject and not by sequence: the message at the sequence just read may have
    // been replaced by a later one of its subject by now.
    Ok(match last_of_subject(jetstream, ">").await? {
        Some(stored) if stored.sequence >= sequence => {
            FeedTail { sequence: stored.sequence, last: wire::identify(&stored), ..lost }
        }
        Some(_) | None => lost,
    })
}

/// The last message of a subject, whoever put it there.
///
/// # Errors
/// [`FeedError::Unavailable`].
pub async fn last_of_subject(jetstream: &Context, subject: &str) -> Result<Option<StreamMessage>, FeedError> {
    let stream = jetstream.get_stream_no_info(STREAM).await.map_err(unanswered)?;
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(FeedError::unavailable(error)),
    }
}

/// Deletes the stream, where there is one.
///
/// # Errors
/// [`FeedError::Unavailable`].
pub async fn delete(jetstream: &Context) -> Result<(), FeedError> {
    match jetstream.delete_stream(STREAM).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error) => Ok(()),
        Err(error) => Err(unanswered(error)),
    }
}

/// Whether the error says that there is no stream.
pub fn is_missing(error: &GetStreamError) -> bool {
    // The kind is the same type for reading and for deleting.
    let kind: DeleteStreamErrorKind = error.kind();
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn unanswered(error: GetStreamError) -> FeedError {
    match error.kind() {
        GetStreamErrorKind::JetStream(answer) if is_disabled(answer.error_code()) => disabled(),
        // Also the sign of a cluster that has no leader just now, so it may pass.
        GetStreamErrorKind::Request if is_silence(&error) => {
            FeedError::unavailable("JetStream does not answer: is it on for this NATS server and account?")
        }
        _ => FeedError::unavailable(error),
    }
}

fn is_silence(error: &GetStreamError) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<RequestError>())
        .is_some_and(|request| request.kind() == RequestErrorKind::NoResponders)
}

fn is_disabled(code: ErrorCode) -> bool {
    code == ErrorCode::JETSTREAM_NOT_ENABLED || code == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
}

fn disabled() -> FeedError {
    FeedError::Unsuitable("JetStream is off for this NATS server or account; turn it on".to_owned())
}

/// A refusal of settings is for an operator to mend; anything else may pass.
fn refused(error: CreateStreamError) -> FeedError {
    match error.kind() {
        CreateStreamErrorKind::JetStream(answer) if is_disabled(answer.error_code()) => disabled(),
        CreateStreamErrorKind::JetStream(answer) if answer.code() == 400 || answer.code() == 500 => {
            FeedError::Unsuitable(format!(
                "the NATS server refuses the settings of the stream {STREAM} ({answer}); mend or delete \
                 what is in their way"
            ))
        }
        _ => FeedError::unavailable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_2_9_are_taken() {
        for version in ["2.9.0", "2.9.10", "2.10.0-RC.1", "2.15.1", "3.0.0", "v2.11.0"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn older_and_nameless_servers_are_refused_with_what_to_do() {
        for version in ["2.8.4", "1.4.1", "0.9"] {
            let refusal = check_version(version).unwrap_err().to_string();
            assert!(refusal.contains(version) && refusal.contains("upgrade"), "{refusal}");
        }
        assert!(matches!(check_version(""), Err(FeedError::Unsuitable(_))));
    }
}
