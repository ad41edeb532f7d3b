//! Whether what was seen can be true, given the log as it is at the end.
//!
//! The log orders all changes. So a history is linearizable for each CA if every question can
//! be given a place in that order that its time allows: not before what was known when it was
//! asked, and not after what was asked when it was answered.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{Answer, Asked, Events, Micros, Question};

/// A trust change as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedChange {
    /// Position.
    pub position: u64,
    /// Serial number.
    pub sn: String,
    /// Revision that it made.
    pub revision: u64,
    /// Whether the CA is active after it.
    pub active: bool,
    /// Request that asked for it.
    pub request_id: String,
}

/// Looks for what cannot be true; one sentence for each.
#[must_use]
pub fn violations(events: &Events, log: &[LoggedChange]) -> Vec<String> {
    let mut found = acknowledged_is_there(&events.calls, log);
    found.extend(refused_is_not_there(&events.calls, log));
    found.extend(one_request_one_effect(log));
    found.extend(order_is_kept(&events.calls));
    for (sn, versions) in by_certificate(log) {
        let calls: Vec<&Asked> = events.calls.iter().filter(|call| call.sn == sn).collect();
        found.extend(reads_have_a_place(&calls, &versions));
    }
    found.extend(receipts_are_true(events, log));
    found
}

fn by_certificate(log: &[LoggedChange]) -> BTreeMap<String, Vec<&LoggedChange>> {
    let mut versions: BTreeMap<String, Vec<&LoggedChange>> = BTreeMap::new();
    for change in log {
        versions.entry(change.sn.clone()).or_default().push(change);
    }
    versions
}

/// An acknowledged change is in the log, at its position.
fn acknowledged_is_there(calls: &[Asked], log: &[LoggedChange]) -> Vec<String> {
    let at: HashMap<u64, &LoggedChange> = log.iter().map(|change| (change.position, change)).collect();
    let missing = |call: &&Asked| match &call.answer {
        Answer::Acknowledged { position, changed: true } => at.get(position).is_none_or(|change| {
            change.sn != call.sn
                || change.request_id != call.request_id
                || change.active != (call.question == Question::Activate)
        }),
        _ => false,
    };
    calls.iter().filter(missing).map(|call| format!("acknowledged, and not in the log: {call:?}")).collect()
}

/// A refused change had no effect.
fn refused_is_not_there(calls: &[Asked], log: &[LoggedChange]) -> Vec<String> {
    let logged: HashSet<&str> = log.iter().map(|change| change.request_id.as_str()).collect();
    let effective = |call: &&Asked| {
        matches!(call.answer, Answer::Refused(_)) && logged.contains(call.request_id.as_str())
    };
    calls.iter().filter(effective).map(|call| format!("refused, and in the log: {call:?}")).collect()
}

/// A request id has one effect at most.
fn one_request_one_effect(log: &[LoggedChange]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut again: Vec<&LoggedChange> = log.iter().collect();
    again.retain(|change| !seen.insert(change.request_id.as_str()));
    again.iter().map(|change| format!("a second effect of one request: {change:?}")).collect()
}

/// What was asked after an acknowledgement stands behind it, over all CAs and replicas.
fn order_is_kept(calls: &[Asked]) -> Vec<String> {
    let mut by_answer: Vec<(&Asked, u64)> =
        calls.iter().filter_map(|call| Some((call, changed(call)?))).collect();
    let mut by_question = by_answer.clone();
    by_answer.sort_by_key(|(call, _)| call.answered);
    by_question.sort_by_key(|(call, _)| call.asked);
    let (mut known, mut highest, mut found) = (0, 0, Vec::new());
    for (call, position) in by_question {
        while let Some((_, earlier)) =
            by_answer.get(known).filter(|(earlier, _)| earlier.answered < call.asked)
        {
            highest = highest.max(*earlier);
            known += 1;
        }
        if position <= highest {
            found.push(format!("position {highest} was told before this was asked: {call:?}"));
        }
    }
    found
}

fn changed(call: &Asked) -> Option<u64> {
    match call.answer {
        Answer::Acknowledged { position, changed: true } => Some(position),
        _ => None,
    }
}

/// Each read of a CA showed a version that was possible at its time. `calls` and `versions`
/// are of one CA.
fn reads_have_a_place(calls: &[&Asked], versions: &[&LoggedChange]) -> Vec<String> {
    let index_of: HashMap<u64, usize> =
        versions.iter().enumerate().map(|(index, change)| (change.revision, index)).collect();
    let asked_at: HashMap<&str, Micros> = calls
        .iter()
        .filter(|call| call.question != Question::Get)
        .map(|call| (call.request_id.as_str(), call.asked))
        .collect();
    // Which version each question proves, where it proves one.
    let mut found = Vec::new();
    let mut proved: Vec<(&Asked, usize)> = Vec::new();
    for call in calls {
        match &call.answer {
            Answer::Acknowledged { position, changed: true } => {
                let index = versions.iter().position(|change| change.position == *position);
                proved.extend(index.map(|index| (*call, index)));
            }
            Answer::State { revision, active } => match index_of.get(revision) {
                Some(index) if versions[*index].active == *active => proved.push((call, *index)),
                _ => found.push(format!("a state that the log never had: {call:?}")),
            },
            _ => {}
        }
    }
    let mut by_answer = proved.clone();
    by_answer.sort_by_key(|(call, _)| call.answered);
    proved.sort_by_key(|(call, _)| call.asked);
    let (mut known, mut highest) = (0, 0);
    for (call, index) in proved {
        while let Some((_, earlier)) =
            by_answer.get(known).filter(|(earlier, _)| earlier.answered < call.asked)
        {
            highest = highest.max(*earlier);
            known += 1;
        }
        if index < highest {
            found.push(format!("an older state than was known: {call:?}"));
        }
        let from_the_future =
            asked_at.get(versions[index].request_id.as_str()).is_some_and(|asked| *asked > call.answered);
        if from_the_future {
            found.push(format!("a state that nobody had asked for yet: {call:?}"));
        }
    }
    found
}

/// After a receipt, no device of a CA that is inactive at its revision is let in, unless
/// somebody has asked for its activation meanwhile.
fn receipts_are_true(events: &Events, log: &[LoggedChange]) -> Vec<String> {
    let versions = by_certificate(log);
    let asked_at: HashMap<&str, Micros> =
        events.calls.iter().map(|call| (call.request_id.as_str(), call.asked)).collect();
    let mut found = Vec::new();
    for probe in events.probes.iter().filter(|probe| probe.admitted) {
        let proved = events
            .receipts
            .iter()
            .filter(|receipt| receipt.seen < probe.asked)
            .map(|receipt| receipt.revision)
            .max();
        let (Some(proved), Some(versions)) = (proved, versions.get(&probe.sn)) else { continue };
        let at_receipt = versions.iter().rev().find(|change| change.revision <= proved);
        let later = |change: &&&LoggedChange| {
            change.revision > proved
                && change.active
                && asked_at.get(change.request_id.as_str()).is_none_or(|asked| *asked < probe.answered)
        };
        let active =
            at_receipt.is_some_and(|change| change.active) || versions.iter().any(|change| later(&change));
        if !active {
            found.push(format!("let in after a receipt for revision {proved}: {probe:?}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::history::{Probe, SeenReceipt};
    use super::*;

    /// A CA registered (1), turned off (2) and on (3).
    fn log() -> Vec<LoggedChange> {
        [(1, true), (2, false), (3, true)]
            .map(|(number, active)| LoggedChange {
                position: number * 10,
                sn: "A".to_owned(),
                revision: number,
                active,
                request_id: format!("r{number}"),
            })
            .to_vec()
    }

    fn call(question: Question, number: u64, asked: Micros, answered: Micros, answer: Answer) -> Asked {
        let request_id = if question == Question::Get { String::new() } else { format!("r{number}") };
        Asked { sn: "A".to_owned(), question, request_id, asked, answered, answer }
    }

    fn change(question: Question, number: u64, asked: Micros, answered: Micros) -> Asked {
        let answer = Answer::Acknowledged { position: number * 10, changed: true };
        call(question, number, asked, answered, answer)
    }

    fn read(revision: u64, active: bool, asked: Micros, answered: Micros) -> Asked {
        call(Question::Get, 0, asked, answered, Answer::State { revision, active })
    }

    fn sound() -> Events {
        let calls = vec![
            change(Question::Inactivate, 2, 100, 200),
            change(Question::Activate, 3, 300, 400),
            read(1, true, 50, 150),
            read(2, false, 210, 290),
            read(2, false, 310, 390),
            read(3, true, 310, 420),
        ];
        let probes = vec![
            Probe { sn: "A".to_owned(), asked: 220, answered: 320, admitted: true },
            Probe { sn: "A".to_owned(), asked: 230, answered: 240, admitted: false },
        ];
        Events { calls, probes, receipts: vec![SeenReceipt { revision: 2, seen: 210 }], faults: Vec::new() }
    }

    fn one(events: &Events, log: &[LoggedChange], word: &str) {
        let found = violations(events, log);
        assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
    }

    #[test]
    fn a_sound_history_has_no_violation() {
        assert_eq!(violations(&sound(), &log()), Vec::<String>::new());
    }

    #[test]
    fn a_lost_change_is_found() {
        let mut events = sound();
        events.calls.truncate(3);
        events.probes.clear();
        one(&events, &log()[..2], "not in the log");
    }

    #[test]
    fn a_refused_change_that_happened_is_found() {
        let mut events = sound();
        events.calls[1].answer = Answer::Refused("LogSetBack".to_owned());
        one(&events, &log(), "refused, and in the log");
        events.calls[1].answer = Answer::Unknown("Unavailable".to_owned());
        assert_eq!(violations(&events, &log()), Vec::<String>::new());
    }

    #[test]
    fn a_second_effect_is_found() {
        let mut log = log();
        log.push(LoggedChange { position: 40, revision: 4, ..log[2].clone() });
        one(&sound(), &log, "second effect");
    }

    #[test]
    fn a_position_below_one_that_was_told_is_found() {
        let mut events = sound();
        let another = |position, number: u64, asked, answered| Asked {
            sn: format!("B{number}"),
            ..call(
                Question::Inactivate,
                number,
                asked,
                answered,
                Answer::Acknowledged { position, changed: true },
            )
        };
        events.calls.extend([another(60, 6, 500, 510), another(50, 5, 520, 530)]);
        let mut log = log();
        for (position, number) in [(50, 5), (60, 6)] {
            let sn = format!("B{number}");
            log.push(LoggedChange {
                position,
                sn,
                revision: number,
                active: false,
                request_id: format!("r{number}"),
            });
        }
        one(&events, &log, "was told before");
    }

    #[test]
    fn a_stale_read_and_one_of_the_future_and_one_of_nothing_are_found() {
        for (extra, word) in [
            (read(1, true, 210, 220), "older state"),
            (read(2, false, 450, 460), "older state"),
            (read(2, false, 50, 90), "nobody had asked"),
            (read(9, true, 50, 90), "never had"),
            (read(2, true, 210, 220), "never had"),
        ] {
            let mut events = sound();
            events.calls.push(extra);
            one(&events, &log(), word);
        }
    }

    #[test]
    fn a_device_let_in_after_the_receipt_is_found() {
        let mut events = sound();
        events.probes.push(Probe { sn: "A".to_owned(), asked: 220, answered: 280, admitted: true });
        one(&events, &log(), "after a receipt");
    }
}
