//! The JetStream stream in use: its settings, its end, and how both are read.

use std::sync::atomic::{AtomicU32, Ordering};

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
use futures::future::try_join_all;

use super::streams::{
    MAX_STREAMS, StreamOutline, StreamUse, archive_subject, created_at, holds_live_subjects, next_number,
    stream_name,
};
use super::wire;
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

/// The settings of a stream in use, on top of what an operator chose for the rest.
fn settings(base: Config, number: u32, replicas: usize) -> Config {
    Config {
        name: stream_name(number),
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

/// The streams of this account, as far as settings and a clock decide about them.
pub struct Streams {
    /// Number of the stream that was in use last.
    current: AtomicU32,
    replicas: usize,
    max_streams: u32,
}

impl Streams {
    pub fn new(replicas: usize, max_streams: u32) -> Self {
        Self { current: AtomicU32::new(1), replicas, max_streams }
    }

    /// Name of the stream that was in use when it was looked at last.
    pub fn name(&self) -> String {
        stream_name(self.current.load(Ordering::Relaxed))
    }

    /// The stream in use; `None` where there is none. Makes none.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`].
    pub async fn find(&self, jetstream: &Context) -> Result<Option<Info>, FeedError> {
        // One question where nothing has changed, and no right on the other names is needed.
        let known = self.current.load(Ordering::Relaxed);
        if let Some(info) = info(jetstream, known).await?
            && holds_live_subjects(&info.config.subjects)
        {
            return Ok(Some(info));
        }
        let newest = all(jetstream).await?.into_iter().filter(is_live).max_by_key(|(_, info)| info.created);
        if let Some((number, _)) = &newest {
            self.current.store(*number, Ordering::Relaxed);
        }
        Ok(newest.map(|(_, info)| info))
    }

    /// Gives the state of the stream in use; makes one where there is none, and mends its
    /// settings where they differ.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]; [`FeedError::NoFurtherStream`];
    /// [`FeedError::Unsuitable`] where the settings cannot be mended or the server does not
    /// keep them.
    pub async fn ensure(&self, jetstream: &Context, now: Timestamp) -> Result<Info, FeedError> {
        let info = match self.find(jetstream).await? {
            Some(info) => info,
            None => self.make(jetstream, now).await?,
        };
        let number = self.current.load(Ordering::Relaxed);
        let wanted = settings(info.config.clone(), number, self.replicas);
        if same(&info.config, &wanted) {
            return Ok(info);
        }
        let name = &wanted.name;
        tracing::warn!(nats.stream = name, "the stream's settings are not catrust's; mending them");
        if info.config.subjects != wanted.subjects {
            self.free_live_subjects(jetstream, number).await?;
        }
        let mended = jetstream.update_stream(&wanted).await.map_err(|error| refused(name, error))?;
        if same(&mended.config, &wanted) {
            return Ok(mended);
        }
        Err(FeedError::Unsuitable(format!(
            "the NATS server does not keep the settings of the stream {name}; compare \
             `nats stream info {name}` with the documentation"
        )))
    }

    /// Sets the stream in use aside, if it still is the one that was made at `created_at`, and
    /// makes the next one.
    ///
    /// # Errors
    /// As [`Streams::ensure`]. The stream is in use as before where there may be no further one.
    pub async fn set_aside(
        &self,
        jetstream: &Context,
        made_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), FeedError> {
        let Some(info) = self.find(jetstream).await? else {
            return self.ensure(jetstream, now).await.map(drop);
        };
        if created_at(&info) != made_at {
            // Somebody else did it.
            return Ok(());
        }
        next_number(&self.outlines(jetstream).await?, self.max_streams, now)?;
        let number = self.current.load(Ordering::Relaxed);
        archive(jetstream, number, info.config).await?;
        self.ensure(jetstream, now).await.map(drop)
    }

    /// Refuses where there may be no further stream at `now`.
    ///
    /// # Errors
    /// [`FeedError::NoFurtherStream`], [`FeedError::Unavailable`].
    pub async fn check_further(&self, jetstream: &Context, now: Timestamp) -> Result<(), FeedError> {
        next_number(&self.outlines(jetstream).await?, self.max_streams, now).map(drop)
    }

    /// Every stream that has one of the names, by number.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`], also where the login has no right to ask about one of them.
    pub async fn outlines(&self, jetstream: &Context) -> Result<Vec<StreamOutline>, FeedError> {
        let streams = all(jetstream).await?;
        Ok(streams.iter().map(|(number, info)| StreamOutline::new(*number, info)).collect())
    }

    async fn make(&self, jetstream: &Context, now: Timestamp) -> Result<Info, FeedError> {
        let streams = self.outlines(jetstream).await?;
        if streams.iter().any(|stream| stream.role == StreamUse::InUse)
            && let Some(info) = self.find(jetstream).await?
        {
            // Somebody else made it in between.
            return Ok(info);
        }
        refuse_strangers(&streams)?;
        let number = next_number(&streams, self.max_streams, now)?;
        let name = stream_name(number);
        let wanted = settings(Config::default(), number, self.replicas);
        let stream = jetstream.create_stream(wanted).await.map_err(|error| refused(&name, error))?;
        self.current.store(number, Ordering::Relaxed);
        tracing::info!(nats.stream = name, "made the stream");
        Ok(stream.cached_info().clone())
    }

    /// Takes the live subjects from every stream but `number`: somebody gave one to another
    /// of ours, and a subject belongs to one stream.
    async fn free_live_subjects(&self, jetstream: &Context, number: u32) -> Result<(), FeedError> {
        for (other, info) in all(jetstream).await?.into_iter().filter(is_live) {
            if other != number {
                archive(jetstream, other, info.config).await?;
            }
        }
        Ok(())
    }
}

fn is_live((_, info): &(u32, Info)) -> bool {
    holds_live_subjects(&info.config.subjects)
}

/// Moves a stream to its archive subject.
async fn archive(jetstream: &Context, number: u32, config: Config) -> Result<(), FeedError> {
    let name = stream_name(number);
    let archived = Config { subjects: vec![archive_subject(number)], ..config };
    jetstream.update_stream(&archived).await.map_err(|error| refused(&name, error))?;
    tracing::warn!(nats.stream = name, "the stream is set aside, and kept as it is");
    Ok(())
}

async fn info(jetstream: &Context, number: u32) -> Result<Option<Info>, FeedError> {
    match jetstream.get_stream(stream_name(number)).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(unanswered(error)),
    }
}

async fn all(jetstream: &Context) -> Result<Vec<(u32, Info)>, FeedError> {
    let asked = (1..=MAX_STREAMS).map(async |number| Ok((number, info(jetstream, number).await?)));
    let answers: Vec<(u32, Option<Info>)> = try_join_all(asked).await?;
    Ok(answers.into_iter().filter_map(|(number, info)| Some((number, info?))).collect())
}

/// Refuses an account whose stream CATRUST is somebody else's who took the same name, where
/// nothing else in it is ours: give catrust an account of its own.
fn refuse_strangers(streams: &[StreamOutline]) -> Result<(), FeedError> {
    match streams {
        [StreamOutline { number, role: StreamUse::Foreign(subjects), .. }] => {
            Err(FeedError::Unsuitable(format!(
                "the NATS account has a stream {} that is not catrust's: it holds {subjects:?}; give catrust an \
                 account of its own, or delete that stream",
                stream_name(*number)
            )))
        }
        _ => Ok(()),
    }
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
    let (sequence, messages) = (info.state.last_sequence, info.state.messages);
    let lost = FeedTail { sequence, last: None, messages, created_at: created_at(info) };
    if sequence == 0 {
        return Ok(lost);
    }
    // By subject and not by sequence: the message at the sequence just read may have
    // been replaced by a later one of its subject by now.
    Ok(match last_of_subject(jetstream, &info.config.name, ">").await? {
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
pub async fn last_of_subject(
    jetstream: &Context,
    stream: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, FeedError> {
    let stream = jetstream.get_stream_no_info(stream).await.map_err(unanswered)?;
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(FeedError::unavailable(error)),
    }
}

/// Deletes a stream, for an operator.
///
/// # Errors
/// [`FeedError::Unavailable`], also where the login may not.
pub async fn delete(jetstream: &Context, number: u32) -> Result<(), FeedError> {
    jetstream.delete_stream(stream_name(number)).await.map(drop).map_err(unanswered)
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
fn refused(stream: &str, error: CreateStreamError) -> FeedError {
    match error.kind() {
        CreateStreamErrorKind::JetStream(answer) if is_disabled(answer.error_code()) => disabled(),
        CreateStreamErrorKind::JetStream(answer) if answer.code() == 400 || answer.code() == 500 => {
            FeedError::Unsuitable(format!(
                "the NATS server refuses the settings of the stream {stream} ({answer}); mend or delete \
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
