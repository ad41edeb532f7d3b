//! The numbered streams: `CATRUST`, `CATRUST_2` … `CATRUST_9`.
//!
//! ```text
//! CATRUST     catrust.v1.archive.1.>                          set aside, and kept
//! CATRUST_2   catrust.v1.trust.>  catrust.v1.log.>            in use: it has the live subjects
//! ```
//!
//! A stream that does not hold this log is set aside: its subjects become its archive
//! subject, which nobody may publish on, and the next stream is made on the freed ones. A
//! server that died between the two steps leaves no stream in use, and the next one that
//! looks makes it. No server deletes a stream, or may; an operator does, by
//! `catrust-server stream remove`.

use async_nats::jetstream::stream::Info;
use catrust_domain::Timestamp;

use crate::feed::FeedError;
use crate::subject::STREAM_SUBJECTS;

/// Most streams that there may be: the names that the servers' login has rights on.
pub const MAX_STREAMS: u32 = 9;
/// New streams within a day, at most. Whoever can write into the stream could otherwise have
/// one made after the other.
const NEW_PER_DAY: usize = 3;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// What a stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamUse {
    /// It has the live subjects.
    InUse,
    /// It was set aside, and is kept as it was then.
    SetAside,
    /// It has one of the names and none of the subjects: somebody else's.
    Foreign(Vec<String>),
}

/// A stream with one of the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOutline {
    /// From 1.
    pub number: u32,
    /// What it is for.
    pub role: StreamUse,
    /// When it was made, by the clock of NATS.
    pub created_at: Timestamp,
    /// Last sequence; 0 for a stream that never held a message.
    pub last_sequence: u64,
    /// Messages kept: the last one of each subject.
    pub messages: u64,
}

impl StreamOutline {
    pub(super) fn new(number: u32, info: &Info) -> Self {
        let subjects = &info.config.subjects;
        let role = if holds_live_subjects(subjects) {
            StreamUse::InUse
        } else if *subjects == [archive_subject(number)] {
            StreamUse::SetAside
        } else {
            StreamUse::Foreign(subjects.clone())
        };
        let (last_sequence, messages) = (info.state.last_sequence, info.state.messages);
        Self { number, role, created_at: created_at(info), last_sequence, messages }
    }
}

/// Name of a stream.
#[must_use]
pub fn stream_name(number: u32) -> String {
    if number == 1 { "CATRUST".to_owned() } else { format!("CATRUST_{number}") }
}

/// The subject of a stream that was set aside. Its messages keep those that they came on.
pub(super) fn archive_subject(number: u32) -> String {
    format!("catrust.v1.archive.{number}.>")
}

pub(super) fn holds_live_subjects(subjects: &[String]) -> bool {
    subjects.iter().any(|subject| STREAM_SUBJECTS.contains(&subject.as_str()))
}

pub(super) fn created_at(info: &Info) -> Timestamp {
    Timestamp::from_micros(i64::try_from(info.created.unix_timestamp_nanos() / 1_000).unwrap_or_default())
}

/// The number of the next stream, where there may be one more beside `streams`.
///
/// # Errors
/// [`FeedError::NoFurtherStream`].
pub(super) fn next_number(
    streams: &[StreamOutline],
    max_streams: u32,
    now: Timestamp,
) -> Result<u32, FeedError> {
    let max_streams = max_streams.min(MAX_STREAMS);
    if streams.len() >= max_streams as usize {
        return Err(FeedError::NoFurtherStream(format!(
            "{} are kept, as many as nats.max_kept_streams allows; look at them with `catrust-server stream \
             list`, and remove one with `catrust-server stream remove`",
            streams.len()
        )));
    }
    let mut made: Vec<Timestamp> = streams.iter().map(|stream| stream.created_at).collect();
    made.sort_unstable();
    // The oldest one took no other's place.
    let new = made.iter().skip(1).filter(|made_at| made_at.plus_seconds(DAY_SECONDS) > now).count();
    if new >= NEW_PER_DAY {
        return Err(FeedError::NoFurtherStream(format!(
            "{new} were made within a day; find out who writes into them, and change that login"
        )));
    }
    let taken = |number: &u32| streams.iter().any(|stream| stream.number == *number);
    (1..=MAX_STREAMS).find(|number| !taken(number)).ok_or_else(|| {
        FeedError::NoFurtherStream(
            "every name is taken; remove one with `catrust-server stream remove`".into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_900_000_000_000_000);

    /// Streams by number, with their ages in hours.
    fn streams(ages: &[(u32, i64)]) -> Vec<StreamOutline> {
        let outline = |&(number, hours): &(u32, i64)| StreamOutline {
            number,
            role: StreamUse::SetAside,
            created_at: NOW.plus_seconds(-hours * 3_600),
            last_sequence: 7,
            messages: 7,
        };
        ages.iter().map(outline).collect()
    }

    fn refusal(ages: &[(u32, i64)], max_streams: u32) -> String {
        match next_number(&streams(ages), max_streams, NOW) {
            Err(FeedError::NoFurtherStream(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_next_stream_gets_the_lowest_free_number() {
        let next = |ages: &[(u32, i64)]| next_number(&streams(ages), MAX_STREAMS, NOW).unwrap();
        assert_eq!(next(&[]), 1);
        assert_eq!(next(&[(1, 99)]), 2);
        assert_eq!(next(&[(1, 99), (3, 50)]), 2, "2 was removed");
        assert_eq!(next(&[(2, 99), (3, 50)]), 1);
    }

    #[test]
    fn three_new_streams_a_day_are_the_end_of_it_until_the_day_is_over() {
        let allowed = |ages: &[(u32, i64)]| next_number(&streams(ages), MAX_STREAMS, NOW).is_ok();
        assert!(allowed(&[(1, 1)]), "the first of all took no other's place");
        assert!(allowed(&[(1, 3), (2, 2), (3, 1)]));
        assert!(refusal(&[(1, 4), (2, 3), (3, 2), (4, 1)], 9).contains("within a day"));
        assert!(refusal(&[(4, 99), (1, 3), (2, 2), (3, 1)], 9).contains("within a day"), "in any order");
        assert!(allowed(&[(1, 99), (2, 25), (3, 2), (4, 1)]), "one of them is of yesterday");
    }

    #[test]
    fn no_more_are_kept_than_the_setting_says() {
        assert_eq!(next_number(&streams(&[(1, 99)]), 2, NOW).unwrap(), 2);
        let text = refusal(&[(1, 99), (2, 98)], 2);
        assert!(text.contains("nats.max_kept_streams") && text.contains("stream remove"), "{text}");
        let nine: Vec<_> = (1..=9).map(|number| (number, 100)).collect();
        assert!(refusal(&nine, 99).contains("9 are kept"), "there are nine names");
    }
}
