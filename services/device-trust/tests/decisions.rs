//! The decision table, without a handshake.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::sync::Arc;

use catrust_decision_table::{Alert, Row, Verdict, rows};
use catrust_device_trust::{Anchor, Refusal, TrustSet};
use rustls_pki_types::UnixTime;

fn set(row: &Row) -> TrustSet {
    let mut set = TrustSet::default();
    for (der, state) in &row.trust {
        assert!(set.add(&Arc::new(Anchor::read(der).unwrap()), *state), "{}", row.name);
    }
    set
}

const fn alert(refusal: Refusal) -> Alert {
    match refusal {
        Refusal::UnknownIssuer => Alert::UnknownCa,
        Refusal::Inactive => Alert::Revoked,
        Refusal::Expired => Alert::Expired,
        Refusal::WrongPurpose => Alert::Unsupported,
        _ => Alert::Bad,
    }
}

#[test]
fn every_row_has_its_verdict() {
    let mut wrong = Vec::new();
    for row in rows() {
        let (set, now) = (set(&row), UnixTime::now());
        let verdict = match set.verify(&row.device.chain, now) {
            Ok(path) => {
                assert!(set.holds(&path, now), "{}", row.name);
                Verdict::Admitted { anchor: path.anchor(), user_name: path.user_name.clone() }
            }
            Err(_) if row.verdict == Verdict::Refused(Alert::Any) => row.verdict.clone(),
            Err(refusal) => Verdict::Refused(alert(refusal)),
        };
        if verdict != row.verdict {
            wrong.push(format!("{}: {verdict:?}, not {:?}", row.name, row.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
