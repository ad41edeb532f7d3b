use catrust_signing::{Signed as _, timestamp};
use tempfile::TempDir;

use super::*;

/// The files of a server, and the root key that it never sees.
struct Desk {
    directory: TempDir,
    root: SigningKey,
    key: SigningKey,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(0).plus_seconds(seconds)
}

fn new_key() -> (SigningKey, String) {
    let pem = SigningKey::generate_pem().unwrap();
    (SigningKey::from_pem(&pem).unwrap(), pem)
}

fn named(key: &SigningKey) -> proto::EventKey {
    proto::EventKey {
        key_id: key.key_id().to_owned(),
        public_key: key.public_key_pem(),
        not_before: Some(timestamp(at(10))),
        not_after: Some(timestamp(at(100))),
        revoked: false,
    }
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ((root, _), (key, pem)) = (new_key(), new_key());
        std::fs::write(directory.path().join("signing.pem"), pem).unwrap();
        std::fs::write(directory.path().join("root.pub.pem"), root.public_key_pem()).unwrap();
        Self { directory, root, key }
    }

    fn config(&self) -> SigningConfig {
        let path = |name: &str| Some(self.directory.path().join(name));
        SigningConfig {
            key_file: path("signing.pem"),
            key_set_file: path("keys.json"),
            root_key_file: path("root.pub.pem"),
            ..SigningConfig::default()
        }
    }

    /// Puts a set in place that expires at 1,000.
    fn put(&self, version: u64, keys: Vec<proto::EventKey>) {
        let mut set = proto::KeySet {
            version,
            keys,
            issued_at: Some(timestamp(at(0))),
            expires_at: Some(timestamp(at(1_000))),
            signature: None,
        };
        set.sign(&self.root).unwrap();
        self.write(&serde_json::to_string(&set).unwrap());
    }

    fn write(&self, text: &str) {
        std::fs::write(self.directory.path().join("keys.json"), text).unwrap();
    }

    fn refused(&self, now: i64) -> String {
        format!("{:#}", ServerKeys::load(&self.config(), at(now)).unwrap_err())
    }
}

/// As a look at the file does it.
fn look(keys: &ServerKeys, now: Timestamp) -> Result<Adoption, String> {
    let source = keys.source.as_ref().unwrap();
    keys.adopt(source.read()?, source, now)
}

#[test]
fn a_key_outside_the_set_does_not_start_and_the_text_says_what_to_do() {
    let desk = Desk::new();
    assert!(desk.refused(50).contains("signing.key_set_file: cannot read"));
    let (other, _) = new_key();
    desk.put(1, vec![named(&other)]);
    let text = desk.refused(50);
    assert!(text.contains("signing.key_file") && text.contains(desk.key.key_id()), "{text}");
    assert!(text.contains("is not in") && text.contains("catrust keys vouch --add PUBLIC_KEY"), "{text}");
    desk.put(1, vec![proto::EventKey { revoked: true, ..named(&desk.key) }]);
    assert!(desk.refused(50).contains("is revoked"), "{}", desk.refused(50));
    desk.put(1, vec![named(&desk.key)]);
    assert!(desk.refused(9).contains("not valid before"), "{}", desk.refused(9));
    assert!(desk.refused(101).contains("expired at"), "{}", desk.refused(101));
    assert!(desk.refused(1_001).contains("renew it with"), "{}", desk.refused(1_001));
    let keys = ServerKeys::load(&desk.config(), at(50)).unwrap();
    assert_eq!(keys.key_set().map(|set| set.version), Some(1));
    let forged = desk.directory.path().join("root.pub.pem");
    std::fs::write(forged, other.public_key_pem()).unwrap();
    assert!(desk.refused(50).contains("no root key vouches"), "{}", desk.refused(50));
}

#[test]
fn without_a_set_the_key_is_enough() {
    let desk = Desk::new();
    let config = SigningConfig { key_file: desk.config().key_file, ..SigningConfig::default() };
    let keys = ServerKeys::load(&config, at(50)).unwrap();
    assert_eq!((keys.key_id(), keys.key_set()), (desk.key.key_id(), None));
    assert!(keys.source.is_none(), "there is no file to read again");
}

#[test]
fn a_newer_set_is_taken_while_the_server_runs_and_told_to_who_follows() {
    let desk = Desk::new();
    desk.put(1, vec![named(&desk.key)]);
    let keys = ServerKeys::load(&desk.config(), at(50)).unwrap();
    let mut followed = keys.follow();
    followed.mark_unchanged();
    assert_eq!(look(&keys, at(50)), Ok(Adoption::Known));
    assert!(!followed.has_changed().unwrap());
    let (next, _) = new_key();
    desk.put(2, vec![named(&desk.key), named(&next)]);
    assert_eq!(look(&keys, at(50)), Ok(Adoption::New));
    assert!(followed.has_changed().unwrap());
    assert_eq!(keys.key_set().map(|set| set.version), Some(2));
}

#[test]
fn a_set_that_cannot_be_used_leaves_the_last_good_one_in_force() {
    let desk = Desk::new();
    desk.put(3, vec![named(&desk.key)]);
    let keys = ServerKeys::load(&desk.config(), at(50)).unwrap();
    let (other, _) = new_key();
    let cases: [(&str, &dyn Fn()); 6] = [
        ("is not in", &|| desk.put(4, vec![named(&other)])),
        ("is revoked", &|| desk.put(4, vec![proto::EventKey { revoked: true, ..named(&desk.key) }])),
        ("version 2, and version 3 is in force", &|| desk.put(2, vec![named(&desk.key)])),
        ("with other content", &|| desk.put(3, vec![named(&desk.key), named(&other)])),
        ("is no key set", &|| desk.write("{\"version\":")),
        ("cannot read", &|| std::fs::remove_file(desk.directory.path().join("keys.json")).unwrap()),
    ];
    for (expected, put) in cases {
        put();
        let Err(problem) = look(&keys, at(50)) else { panic!("{expected}: it was taken") };
        assert!(problem.contains(expected), "{expected}: {problem}");
        assert_eq!(keys.key_set().map(|set| set.version), Some(3), "{expected}");
    }
    // Its own expiry makes it no worse than any other that could be had.
    desk.put(3, vec![named(&desk.key)]);
    assert_eq!(look(&keys, at(2_000)), Ok(Adoption::Known));
}

#[test]
fn what_a_revoked_key_signed_counts_in_the_log_and_nowhere_else() {
    let desk = Desk::new();
    let (revoked, _) = new_key();
    let (stranger, _) = new_key();
    desk.put(1, vec![named(&desk.key), proto::EventKey { revoked: true, ..named(&revoked) }]);
    let keys = ServerKeys::load(&desk.config(), at(50)).unwrap();
    let sealed =
        |key: &SigningKey| Seal { key_id: key.key_id().to_owned(), value: key.seal(b"an epoch begins") };
    for (key, counts, counts_in_the_log) in
        [(&desk.key, true, true), (&revoked, false, true), (&stranger, false, false)]
    {
        let seal = sealed(key);
        assert_eq!(keys.check(b"an epoch begins", &seal).is_ok(), counts);
        assert_eq!(keys.check_past(b"an epoch begins", &seal).is_ok(), counts_in_the_log);
        assert!(keys.check_past(b"another one begins", &seal).is_err());
    }
    let seal = keys.seal(b"an epoch begins").unwrap();
    assert_eq!(Notary::key_id(&keys), Some(seal.key_id));
}
