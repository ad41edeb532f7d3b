use proptest::prelude::*;

use super::*;

fn fleet() -> InstanceId {
    "fleet".parse().unwrap()
}

fn hash(of: u64) -> Sha256 {
    Sha256::of(&of.to_be_bytes())
}

fn evidence(epoch: u32, mark: LogMark) -> LogEvidence {
    let seen_at = Timestamp::from_micros(0);
    LogEvidence { epoch: LogEpoch(epoch), mark, witness: "a test".into(), seen_at }
}

/// A log of epoch `epoch` that ends at `end`, whose row n has the hash of n and made
/// revision n of `fleet` with the digest of n, in epoch 0.
fn log(epoch: u32, end: u64, mark: &LogMark) -> LogView {
    let position = mark.position();
    LogView {
        epoch: EpochInForce { epoch: LogEpoch(epoch), ..EpochInForce::FIRST },
        end: LogHead { position: end, hash: hash(end), ..LogHead::EMPTY },
        row: (1..=end).contains(&position).then(|| MarkedRow {
            hash: hash(position),
            instance_id: fleet(),
            revision: Some(position),
            digest: Some(hash(position)),
        }),
        root: (position <= end).then(|| hash(position)),
    }
}

fn row(position: u64) -> LogMark {
    LogMark::Row { position, hash: hash(position) }
}

fn trust(epoch: u32, position: u64) -> LogMark {
    let revision = LogEpoch(epoch).revision(position);
    LogMark::Trust { instance_id: fleet(), position, revision, digest: hash(position) }
}

fn checkpoint(size: u64) -> LogMark {
    LogMark::Checkpoint { size, root: hash(size) }
}

#[test]
fn what_the_log_has_agrees() {
    for mark in [row(5), row(4), trust(1, 5), trust(1, 3), trust(1, 0), checkpoint(5), checkpoint(0)] {
        assert_eq!(verdict(&evidence(1, mark.clone()), &log(1, 5, &mark)), Verdict::Agrees, "{mark:?}");
    }
}

#[test]
fn what_lies_beyond_the_end_is_a_set_back() {
    for mark in [row(6), trust(1, 6), checkpoint(6)] {
        let seen = verdict(&evidence(1, mark.clone()), &log(1, 5, &mark));
        assert_eq!(seen, Verdict::SetBack(Contradiction::Shorter { end: 5 }), "{mark:?}");
        assert!(seen.halts());
    }
}

#[test]
fn another_row_there_is_a_set_back() {
    let trust = |instance: &str, revision, digest| LogMark::Trust {
        instance_id: instance.parse().unwrap(),
        position: 4,
        revision,
        digest: hash(digest),
    };
    for mark in [
        LogMark::Row { position: 4, hash: hash(9) },
        trust("other", 4, 4),
        trust("fleet", 5, 4),
        trust("fleet", 4, 9),
        LogMark::Checkpoint { size: 4, root: hash(9) },
    ] {
        let seen = verdict(&evidence(0, mark.clone()), &log(0, 5, &mark));
        assert_eq!(seen, Verdict::SetBack(Contradiction::Other), "{mark:?}");
    }
}

#[test]
fn a_row_that_is_no_trust_change_contradicts_trust() {
    let mark = trust(0, 4);
    let mut log = log(0, 5, &mark);
    log.row = log.row.map(|row| MarkedRow { revision: None, digest: None, ..row });
    assert_eq!(verdict(&evidence(0, mark), &log), Verdict::SetBack(Contradiction::Other));
}

#[test]
fn a_root_that_was_not_computed_contradicts_nothing() {
    let mark = LogMark::Checkpoint { size: 4, root: hash(9) };
    let log = LogView { root: None, ..log(0, 5, &mark) };
    assert_eq!(verdict(&evidence(0, mark), &log), Verdict::Agrees);
}

proptest! {
    // Ground rule 4: evidence of an ended epoch halts nothing. Evidence of a higher one means
    // that this server is superseded: it halts.
    #[test]
    fn epochs_decide_before_positions(
        epoch in any::<u32>(), other in any::<u32>(), end in 0..20_u64, at in 0..40_u64, kind in 0..3,
    ) {
        let mark = match kind {
            0 => row(at),
            1 => trust(other, at),
            _ => checkpoint(at),
        };
        let seen = verdict(&evidence(other, mark.clone()), &log(epoch, end, &mark));
        match other.cmp(&epoch) {
            std::cmp::Ordering::Less => prop_assert_eq!(&seen, &Verdict::Ended),
            std::cmp::Ordering::Greater => prop_assert_eq!(&seen, &Verdict::Superseded),
            std::cmp::Ordering::Equal => prop_assert_eq!(seen.halts(), at > end),
        }
        prop_assert_eq!(seen.halts(), other > epoch || (other == epoch && at > end));
    }

    // A verdict, not a latch: it follows the log, whatever was found before.
    #[test]
    fn a_log_that_has_it_again_agrees_again(end in 0..20_u64, at in 1..40_u64) {
        let mark = row(at);
        prop_assert_eq!(verdict(&evidence(0, mark.clone()), &log(0, end, &mark)).halts(), at > end);
        prop_assert_eq!(verdict(&evidence(0, mark.clone()), &log(0, at, &mark)), Verdict::Agrees);
    }
}

#[test]
fn every_field_is_signed() {
    let log_id = Uuid::from_u128(1);
    let base = evidence(1, trust(1, 4));
    let signed = base.statement(log_id);
    let mark = |instance: &str, position, revision, digest| LogMark::Trust {
        instance_id: instance.parse().unwrap(),
        position,
        revision,
        digest: hash(digest),
    };
    let revision = LogEpoch(1).revision(4);
    assert_eq!(evidence(1, mark("fleet", 4, revision, 4)).statement(log_id), signed);
    for other in [
        evidence(2, base.mark.clone()),
        evidence(1, mark("other", 4, revision, 4)),
        evidence(1, mark("fleet", 5, revision, 4)),
        evidence(1, mark("fleet", 4, revision + 1, 4)),
        evidence(1, mark("fleet", 4, revision, 5)),
        evidence(1, row(4)),
        LogEvidence { witness: "another".into(), ..base.clone() },
        LogEvidence { seen_at: Timestamp::from_micros(1), ..base.clone() },
    ] {
        assert_ne!(other.statement(log_id), signed, "{other:?}");
    }
    assert_ne!(base.statement(Uuid::from_u128(2)), signed);
    assert_ne!(evidence(1, row(4)).statement(log_id), evidence(1, checkpoint(4)).statement(log_id));
    let other_hash = LogMark::Row { position: 4, hash: hash(5) };
    assert_ne!(evidence(1, row(4)).statement(log_id), evidence(1, other_hash).statement(log_id));
}

#[test]
fn people_read_what_was_seen_and_by_whom() {
    assert_eq!(evidence(0, row(4)).to_string(), format!("a test has seen position 4 with hash {}", hash(4)));
    assert_eq!(
        evidence(1, trust(1, 4)).to_string(),
        "a test has seen epoch 1, revision 4 of fleet at position 4 in epoch 1"
    );
    assert_eq!(Contradiction::Shorter { end: 3 }.to_string(), "the log ends at position 3");
}
