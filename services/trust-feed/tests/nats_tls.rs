//! TLS to NATS and the ways to log in there, against a real `nats-server`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use catrust_test_harness::eventually::eventually;
use catrust_test_harness::nats::NatsServer;
use catrust_trust_feed::{NatsFeed, NatsSettings, TrustFeed as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// How long a refusal is waited for: the connection is tried again all the while.
const REFUSAL: Duration = Duration::from_secs(3);
/// How long an answer may take: a server that has just started on a busy machine may let a
/// first attempt run into the client's timeout of 5 s.
const ANSWER: Duration = Duration::from_secs(30);

/// A CA, a certificate for a server that it signed, and one for a client.
struct Pki(TempDir);

impl Pki {
    fn for_host(host: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let ca_key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("a CA");
        fs::write(at("ca.pem"), ca.pem()).expect("written");
        let issuer = Issuer::new(params, ca_key);
        for (name, host) in [("server", host), ("client", "client")] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
            let leaf = params.signed_by(&key, &issuer).expect("a leaf");
            fs::write(at(&format!("{name}.pem")), leaf.pem()).expect("written");
            fs::write(at(&format!("{name}.key")), key.serialize_pem()).expect("written");
        }
        Self(directory)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A server with the certificate, its configuration extended by `more`.
    async fn serve(&self, more: &str) -> NatsServer {
        let path = |name| self.file(name).display().to_string();
        let text = format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {} }}\n{more}",
            path("server.pem"),
            path("server.key"),
            path("ca.pem"),
            more.contains("# verify"),
        );
        fs::write(self.file("nats.conf"), text).expect("written");
        NatsServer::start_with(&["-c", &path("nats.conf")]).await.expect("NATS starts")
    }

    fn trusting(&self, server: &NatsServer) -> NatsSettings {
        NatsSettings { tls_ca_file: Some(self.file("ca.pem")), ..NatsSettings::new(server.url()) }
    }
}

/// Whether the feed answers; else what it said last.
async fn answers(settings: &NatsSettings) -> Result<(), String> {
    answers_within(ANSWER, settings).await
}

/// Whether the feed does not answer, for as long as that is waited for.
async fn is_refused(settings: &NatsSettings) -> bool {
    answers_within(REFUSAL, settings).await.is_err()
}

async fn answers_within(patience: Duration, settings: &NatsSettings) -> Result<(), String> {
    let feed = NatsFeed::connect(settings).await.map_err(|error| error.to_string())?;
    let answer = eventually(patience, "the feed answers", async || feed.tail().await).await;
    answer.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_server_is_believed_for_its_ca_and_its_name_alone() {
    let (right, wrong, misnamed) =
        (Pki::for_host("127.0.0.1"), Pki::for_host("127.0.0.1"), Pki::for_host("nats.example.org"));
    let server = right.serve("").await;
    assert_eq!(answers(&right.trusting(&server)).await, Ok(()));
    assert!(is_refused(&wrong.trusting(&server)).await, "another CA");
    let no_ca = NatsSettings::new(server.url());
    assert!(is_refused(&no_ca).await, "the CAs of the system do not know it");
    let elsewhere = misnamed.serve("").await;
    assert!(is_refused(&misnamed.trusting(&elsewhere)).await, "another host's certificate");
}

#[tokio::test]
async fn nothing_is_said_to_a_server_without_tls_where_tls_is_asked_for() {
    let pki = Pki::for_host("127.0.0.1");
    let plain = NatsServer::start().await.unwrap();
    assert_eq!(answers(&NatsSettings::new(plain.url())).await, Ok(()));
    assert!(is_refused(&pki.trusting(&plain)).await, "a CA is given");
    let by_scheme = NatsSettings::new(plain.url().replace("nats://", "tls://"));
    assert!(is_refused(&by_scheme).await, "the URL says so");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let (pki, stranger) = (Pki::for_host("127.0.0.1"), Pki::for_host("127.0.0.1"));
    let server = pki.serve("# verify").await;
    assert!(is_refused(&pki.trusting(&server)).await, "none");
    let with = |owner: &Pki| NatsSettings {
        tls_certificate_file: Some(owner.file("client.pem")),
        tls_key_file: Some(owner.file("client.key")),
        ..pki.trusting(&server)
    };
    assert!(is_refused(&with(&stranger)).await, "of another CA");
    assert_eq!(answers(&with(&pki)).await, Ok(()));
}

#[tokio::test]
async fn the_seed_of_an_nkey_lets_its_owner_in_and_nobody_else() {
    let (pki, user) = (Pki::for_host("127.0.0.1"), nkeys::KeyPair::new_user());
    let server =
        pki.serve(&format!("authorization {{ users = [ {{ nkey: {} }} ] }}", user.public_key())).await;
    let with = |key: &nkeys::KeyPair| {
        let file = pki.file(&key.public_key());
        fs::write(&file, key.seed().unwrap()).unwrap();
        NatsSettings { nkey_file: Some(file), ..pki.trusting(&server) }
    };
    assert_eq!(answers(&with(&user)).await, Ok(()));
    assert!(is_refused(&with(&nkeys::KeyPair::new_user())).await, "another key");
    assert!(is_refused(&pki.trusting(&server)).await, "no key");
}
