//! The decision table in a real Mosquitto, each row by a real handshake. The broker's log
//! has the name that the device was given.

use catrust_decision_table::{Verdict, rows};

use crate::agent::Agent;
use crate::device::{Attempt, Device, TLS12, TLS13};
use crate::eventually::{LIMIT, eventually};
use crate::mosquitto::{Broker, Settings};
use crate::mqtt::Connect;
use crate::trust::bundle_of;

#[tokio::test]
async fn every_row_has_its_verdict_in_the_broker() {
    let broker = Broker::start(&Settings::default()).await;
    let mut agent = Agent::connect(&broker).await;
    for (revision, row) in (1..).zip(rows()) {
        let states: Vec<_> = row.trust.iter().map(|(der, state)| (&der[..], *state)).collect();
        agent.apply(bundle_of(revision, &states)).await;
        for tls in [TLS12, TLS13] {
            let id = format!("row-{revision}-{:?}", tls.version.version);
            let what = format!("{}, {id}", row.name);
            let device = Device::showing(&broker, &row.device.chain, &row.device.key, tls);
            match (device.attempt_with(&broker, &Connect::new(&id)).await, &row.verdict) {
                (Attempt::Connected(_), Verdict::Admitted { user_name, .. }) => {
                    let line = eventually(LIMIT, &what, async || {
                        let log = broker.log();
                        let line = log.lines().find(|line| line.contains(&format!(" as {id} (")));
                        line.map(str::to_owned).ok_or(log)
                    })
                    .await
                    .unwrap();
                    assert!(line.ends_with(&format!(", u'{user_name}').")), "{what}: {line}");
                }
                (Attempt::TlsRefused(error), Verdict::Refused(alert)) => {
                    assert!(error.contains(alert.text()), "{what}: {error}");
                }
                (Attempt::Connected(_), verdict) => panic!("{what}: admitted, not {verdict:?}"),
                (Attempt::TlsRefused(error), verdict) => panic!("{what}: {error}, not {verdict:?}"),
                (Attempt::ConnectRefused(code), verdict) => panic!("{what}: CONNACK {code}, not {verdict:?}"),
            }
        }
    }
}
