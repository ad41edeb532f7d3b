//! The key that signs the feed, and the keys that readers trust.
//!
//! Ed25519 (RFC 8032): signatures are deterministic, so that every replica with
//! the same key makes the same bytes of the same log row. Which keys are believed when
//! they change is for [`key_ring`](crate::key_ring) to say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use catrust_domain::Sha256;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::DecodePrivateKey as _;
use ring::rand::SecureRandom as _;
use ring::signature::{ED25519, UnparsedPublicKey};
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::canonical::{Keys, VerifyError};
use crate::pem;

/// DER in front of the 32 byte seed of a PKCS#8 version 1 key (RFC 8410 §7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// DER in front of the 32 byte key of a SubjectPublicKeyInfo (RFC 8410 §4).
pub(crate) const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const PRIVATE_LABEL: &str = "PRIVATE KEY";
const PUBLIC_LABEL: &str = "PUBLIC KEY";

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Not one PEM block `PRIVATE KEY` with an Ed25519 key; other kinds of keys
    /// and encrypted ones are refused.
    #[error("not an Ed25519 private key; make one with `openssl genpkey -algorithm ed25519`")]
    NotAPrivateKey,
    /// No PEM block `PUBLIC KEY`, or one that is not an Ed25519 key.
    #[error("not an Ed25519 public key; take it with `openssl pkey -in KEY -pubout`")]
    NotAPublicKey,
    /// The system has no randomness to give.
    #[error("the system gave no randomness")]
    NoRandomness,
}

fn read(path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|source| KeyError::Unreadable { path: path.to_owned(), source })
}

/// Name of a key: the first 16 hexadecimal digits of the SHA-256 of its bytes.
fn key_id(public_key: &[u8]) -> String {
    hex::encode(&Sha256::of(public_key).as_bytes()[..8])
}

/// The private key of the feed. `Debug` shows its name alone.
pub struct SigningKey {
    pair: ed25519_dalek::SigningKey,
    key_id: String,
}

impl SigningKey {
    /// Makes a new key, as the PEM that [`SigningKey::from_pem`] and `openssl pkey`
    /// read. The text is the secret: write it to a file that only the server reads.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate_pem() -> Result<String, KeyError> {
        let mut seed = [0; 32];
        ring::rand::SystemRandom::new().fill(&mut seed).map_err(|_| KeyError::NoRandomness)?;
        Ok(pem::encode(PRIVATE_LABEL, &[&PKCS8_PREFIX[..], &seed].concat()))
    }

    /// Reads a PKCS#8 key in PEM, with or without the public key inside.
    ///
    /// # Errors
    /// [`KeyError::NotAPrivateKey`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der: PrivatePkcs8KeyDer<'_> = pem::decode_one(text).ok_or(KeyError::NotAPrivateKey)?;
        let pair = ed25519_dalek::SigningKey::from_pkcs8_der(der.secret_pkcs8_der());
        let pair = pair.map_err(|_| KeyError::NotAPrivateKey)?;
        let key_id = key_id(pair.verifying_key().as_bytes());
        Ok(Self { pair, key_id })
    }

    /// Reads a key file; see [`SigningKey::from_pem`]. Blocks: call it at start.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`], [`KeyError::NotAPrivateKey`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&read(path)?)
    }

    /// Name of the key, as signatures carry it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public key in PEM, for readers to pin.
    #[must_use]
    pub fn public_key_pem(&self) -> String {
        pem::encode(PUBLIC_LABEL, &[&SPKI_PREFIX[..], self.pair.verifying_key().as_bytes()].concat())
    }

    /// A secret for `purpose`: always the same for those who have this key, and unknown to
    /// everybody else. It MUST NOT leave the servers.
    #[must_use]
    pub fn secret_for(&self, purpose: &str) -> [u8; 32] {
        // A signature is a function of key and text (RFC 8032 §5.1.6), and nobody can make
        // this one without the key. No message begins like this text.
        let signature = self.sign(format!("a secret of the catrust servers for: {purpose}").as_bytes());
        *Sha256::of(&signature).as_bytes()
    }

    /// Signs a statement of the servers to each other that is no message: evidence, the beginning of
    /// a log epoch. It MUST begin with a context of its own, which no message begins with.
    #[must_use]
    pub fn seal(&self, statement: &[u8]) -> Vec<u8> {
        self.sign(statement)
    }

    /// Whether the holder of the public key `raw` made `signature` over `bytes`.
    pub(crate) fn check_raw(raw: &[u8; 32], bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, raw).verify(bytes, signature).is_ok()
    }

    /// Signs `bytes`; 64 bytes come back, always the same for the same input.
    pub(crate) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).to_vec()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.key_id)
    }
}

/// The public keys that a reader accepts, given to it beforehand. Several, so that
/// keys can be changed: pin the new one everywhere, then sign with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustKeys {
    keys: BTreeMap<String, [u8; 32]>,
}

impl TrustKeys {
    /// Reads every `PUBLIC KEY` block of a PEM text.
    ///
    /// # Errors
    /// [`KeyError::NotAPublicKey`] where there is none, or one is not Ed25519.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let blocks: Vec<SubjectPublicKeyInfoDer<'_>> =
            pem::decode_all(text).ok_or(KeyError::NotAPublicKey)?;
        if blocks.is_empty() {
            return Err(KeyError::NotAPublicKey);
        }
        let mut keys = BTreeMap::new();
        for der in blocks {
            let raw = der.strip_prefix(&SPKI_PREFIX).ok_or(KeyError::NotAPublicKey)?;
            let raw: [u8; 32] = raw.try_into().map_err(|_| KeyError::NotAPublicKey)?;
            keys.insert(key_id(&raw), raw);
        }
        Ok(Self { keys })
    }

    /// Reads files, each with one public key or more. Blocks: call it at start.
    ///
    /// # Errors
    /// [`KeyError::Unreadable`], [`KeyError::NotAPublicKey`]; the first bad file ends it.
    pub fn load<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, KeyError> {
        let mut all = Self::default();
        for path in paths {
            all.extend(Self::from_pem(&read(path.as_ref())?)?);
        }
        Ok(all)
    }

    /// Names of the keys, ascending.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// All of them in PEM, in the order of [`TrustKeys::key_ids`].
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.keys.values().map(|key| pem::encode(PUBLIC_LABEL, &[&SPKI_PREFIX[..], key].concat())).collect()
    }

    /// Whether the key is among them.
    #[must_use]
    pub fn contains(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    /// The keys' bytes, in the order of [`TrustKeys::key_ids`].
    pub(crate) fn raw(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys.values()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes the keys of another set in.
    pub fn extend(&mut self, others: Self) {
        self.keys.extend(others.keys);
    }
}

impl Keys for TrustKeys {
    fn check(&self, key_id: &str, bytes: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let key =
            self.keys.get(key_id).ok_or_else(|| VerifyError::UnknownKey { key_id: key_id.to_owned() })?;
        let good = UnparsedPublicKey::new(&ED25519, key).verify(bytes, signature).is_ok();
        if good { Ok(()) } else { Err(VerifyError::BadSignature) }
    }
}

impl From<&SigningKey> for TrustKeys {
    fn from(key: &SigningKey) -> Self {
        Self { keys: BTreeMap::from([(key.key_id.clone(), key.pair.verifying_key().to_bytes())]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seed and public key of RFC 8032 §7.1, test 1, wrapped as
    /// `openssl genpkey` writes it.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn an_openssl_key_signs_as_rfc_8032_says() {
        let key = SigningKey::from_pem(KEY).unwrap();
        assert_eq!(hex::encode(key.pair.verifying_key().as_bytes()), PUBLIC);
        assert_eq!(
            hex::encode(key.sign(b"")),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
        assert_eq!(key.key_id(), &hex::encode(Sha256::of(&hex::decode(PUBLIC).unwrap()).as_bytes())[..16]);
    }

    #[test]
    fn secrets_are_those_of_the_key_and_of_the_purpose() {
        let [one, same] = [KEY; 2].map(|pem| SigningKey::from_pem(pem).unwrap());
        let another = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        assert_eq!(one.secret_for("a"), same.secret_for("a"));
        assert_ne!(one.secret_for("a"), one.secret_for("b"));
        assert_ne!(one.secret_for("a"), another.secret_for("a"));
    }

    #[test]
    fn a_new_key_can_be_read_and_is_another_each_time() {
        let one = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let two = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        assert_ne!(one.key_id(), two.key_id());
        let keys = TrustKeys::from_pem(&format!("{}{}", one.public_key_pem(), two.public_key_pem())).unwrap();
        assert_eq!(keys.check(two.key_id(), b"x", &two.sign(b"x")), Ok(()));
        assert_eq!(keys.check(one.key_id(), b"x", &two.sign(b"x")), Err(VerifyError::BadSignature));
        assert_eq!(TrustKeys::from_pem(&keys.to_pem()).unwrap(), keys);
        let unknown = VerifyError::UnknownKey { key_id: two.key_id().to_owned() };
        assert_eq!(TrustKeys::from(&one).check(two.key_id(), b"x", &two.sign(b"x")), Err(unknown));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let pem = SigningKey::generate_pem().unwrap();
        let key = SigningKey::from_pem(&pem).unwrap();
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.key_id()));
    }

    #[test]
    fn other_keys_are_refused() {
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            &KEY.replace("PRIVATE", "RSA"),
        ] {
            assert!(matches!(SigningKey::from_pem(text), Err(KeyError::NotAPrivateKey)), "{text}");
            assert!(matches!(TrustKeys::from_pem(text), Err(KeyError::NotAPublicKey)), "{text}");
        }
        let rsa = pem::encode(PUBLIC_LABEL, &[0x30; 44]);
        assert!(matches!(TrustKeys::from_pem(&rsa), Err(KeyError::NotAPublicKey)));
    }

    #[test]
    fn several_files_make_one_set() {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::from_pem(KEY).unwrap();
        let file = directory.path().join("one.pem");
        std::fs::write(&file, key.public_key_pem()).unwrap();
        assert_eq!(TrustKeys::load([&file]).unwrap(), TrustKeys::from(&key));
        let missing = directory.path().join("two.pem");
        assert!(matches!(TrustKeys::load([&file, &missing]), Err(KeyError::Unreadable { .. })));
    }
}
