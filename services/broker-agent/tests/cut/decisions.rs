//! The decision table at the SDK's front and through the gate, each row by a real
//! handshake. The gate's broker sees the name in the PROXY header.

use catrust_decision_table::{Row, Verdict, rows};
use catrust_domain::{CaState, Sha256};
use rustls::pki_types::CertificateDer;

use crate::broker::FakeBroker;
use crate::fixtures::{Device, trust_of};
use crate::harness::{Gate, VERSIONS, soon, until};

fn states(row: &Row) -> Vec<(&CertificateDer<'static>, CaState)> {
    row.trust.iter().map(|(der, state)| (der, *state)).collect()
}

/// The value of `PP2_SUBTYPE_SSL_CN` in what the broker got.
fn name_in_header(bytes: &[u8]) -> String {
    // Behind signature, addresses, the TLS facts and the version.
    let field = &bytes[16 + 12 + 8 + 10..];
    assert_eq!(field[0], 0x22);
    let length = usize::from(u16::from_be_bytes([field[1], field[2]]));
    String::from_utf8(field[3..3 + length].to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_has_its_verdict_at_the_gate() {
    let broker = FakeBroker::tcp().await;
    let gate = Gate::start(&broker.address, &["--proxy-protocol", "v2"]).await;
    for (revision, row) in (1..).zip(rows()) {
        gate.apply(&trust_of(revision, &states(&row))).await;
        for version in VERSIONS {
            let what = format!("{}, {:?}", row.name, version.version);
            let device = Device { chain: row.device.chain.clone(), key: row.device.key.clone() };
            let client = gate.client(&device, version);
            let before = broker.seen().len();
            match (soon(&what, client.connect()).await, &row.verdict) {
                (Ok(connection), Verdict::Admitted { anchor, user_name }) => {
                    assert_eq!(name_in_header(&broker.seen()[before].bytes), *user_name, "{what}");
                    assert_eq!(gate.trust.registry().open_below(anchor), 1, "{what}");
                    drop(connection);
                }
                (Err(error), Verdict::Refused(alert)) => {
                    assert!(error.to_string().contains(alert.text()), "{what}: {error}");
                }
                (result, verdict) => panic!("{what}: {:?}, not {verdict:?}", result.map(|_| "admitted")),
            }
            until("nobody is left", || gate.trust.registry().open(), |open| *open == 0).await;
        }
    }
}

/// The front as a Rust broker has it: what it hands out, before any byte is forwarded.
#[tokio::test(flavor = "multi_thread")]
async fn every_row_has_its_verdict_at_the_front() {
    let gate = Gate::start("127.0.0.1:9", &[]).await;
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    for (revision, row) in (1..).zip(rows()) {
        gate.apply(&trust_of(revision, &states(&row))).await;
        let device = Device { chain: row.device.chain.clone(), key: row.device.key.clone() };
        let client = gate.client(&device, VERSIONS[1]).to(address);
        let accept = async {
            let (socket, _) = socket.accept().await.unwrap();
            let accepted = gate.parts.front.accept(socket).await;
            accepted.map(|(_, session)| (session.anchor(), session.path().user_name.clone()))
        };
        // The device waits for an answer that does not come.
        let (verdict, _) = soon(&row.name, async { tokio::join!(accept, client.connect()) }).await;
        match (verdict, &row.verdict) {
            (Ok(found), Verdict::Admitted { anchor, user_name }) => {
                let expected: (Sha256, String) = (*anchor, user_name.clone());
                assert_eq!(found, expected, "{}", row.name);
            }
            (Err(_), Verdict::Refused(_)) => {}
            (found, verdict) => panic!("{}: {found:?}, not {verdict:?}", row.name),
        }
    }
}
