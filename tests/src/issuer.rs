//! An issuer of tokens: signs them, publishes its keys on loopback, and changes them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Leaf;
use crate::deployment::{ACCOUNT, Plan};
use crate::program::run;

/// `iss` of its tokens.
pub const ISSUER: &str = "https://issuer.example.org";
/// `aud` of its tokens.
pub const AUDIENCE: &str = "catrust";

/// A private key and its name.
#[derive(Debug)]
pub struct Key {
    /// `kid`.
    pub id: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Es256(Box<EcdsaKeyPair>),
    Rs256(Box<RsaKeyPair>),
}

impl Key {
    /// An ECDSA key on P-256.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn es256(id: &str) -> anyhow::Result<Self> {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let failed = |_| anyhow::anyhow!("no key");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
        let pair = pair.map_err(|error| anyhow::anyhow!("own key: {error}"))?;
        Ok(Self { id: id.to_owned(), material: Material::Es256(Box::new(pair)) })
    }

    /// An RSA key of 2,048 bits, made by `openssl`.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub async fn rs256(id: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let (pem, der) = (at("key.pem"), at("key.der"));
        let bits = ["-pkeyopt", "rsa_keygen_bits:2048"];
        run("openssl", [&["genpkey", "-algorithm", "RSA", "-out", &pem], &bits[..]].concat())
            .await?
            .success()?;
        let to_der = ["pkcs8", "-topk8", "-nocrypt", "-in", &pem, "-outform", "DER", "-out", &der];
        run("openssl", to_der).await?.success()?;
        let pair = RsaKeyPair::from_pkcs8(&std::fs::read(&der)?)
            .map_err(|error| anyhow::anyhow!("openssl's key: {error}"))?;
        Ok(Self { id: id.to_owned(), material: Material::Rs256(Box::new(pair)) })
    }

    /// `alg` of its signatures.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        match self.material {
            Material::Es256(_) => "ES256",
            Material::Rs256(_) => "RS256",
        }
    }

    /// The public key as a JSON Web Key.
    #[must_use]
    pub fn public(&self) -> Value {
        match &self.material {
            Material::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y})
            }
            Material::Rs256(pair) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                json!({"kty": "RSA", "use": "sig", "kid": self.id, "n": base64url(n), "e": base64url(e)})
            }
        }
    }

    /// A token with this header and payload, whatever they say.
    ///
    /// # Panics
    /// When there is no randomness.
    #[must_use]
    pub fn sign(&self, header: &Value, payload: &str) -> String {
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(payload));
        let random = SystemRandom::new();
        let signature = match &self.material {
            Material::Es256(pair) => {
                pair.sign(&random, signed.as_bytes()).expect("randomness").as_ref().to_vec()
            }
            Material::Rs256(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let signing = pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature);
                signing.expect("randomness");
                signature
            }
        };
        format!("{signed}.{}", base64url(signature))
    }

    /// A token with these claims, as the issuer makes it.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": self.id, "typ": "at+jwt"});
        self.sign(&header, &claims.to_string())
    }
}

/// Claims of a good token for `user` of [`ACCOUNT`], good for ten minutes.
#[must_use]
pub fn claims(user: &str) -> Value {
    let now = now();
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": user, "account_id": ACCOUNT, "iat": now, "exp": now + 600})
}

/// `cnf.x5t#S256` of a certificate (RFC 8705 §3.1).
#[must_use]
pub fn bound_to(certificate_der: &[u8]) -> Value {
    json!({"x5t#S256": base64url(Sha256::digest(certificate_der))})
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().try_into().unwrap_or(i64::MAX)
}

/// base64url without padding.
#[must_use]
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key set of keys.
#[must_use]
pub fn key_set(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>()}).to_string()
}

/// The settings for this issuer, but for where its keys are.
#[must_use]
pub fn plan(plan: Plan) -> Plan {
    plan.set("auth.jwt.issuer", &format!("{ISSUER:?}")).set("auth.jwt.audience", &format!("{AUDIENCE:?}"))
}

/// The place on loopback where an issuer publishes its keys.
#[derive(Debug)]
pub struct Publisher {
    url: String,
    shared: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    document: Mutex<String>,
    away: AtomicBool,
    asked: AtomicUsize,
}

impl Publisher {
    /// Publishes keys.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(keys: &[&Key]) -> anyhow::Result<Self> {
        Self::begin(keys, None).await
    }

    /// Publishes keys by https, under a certificate for 127.0.0.1.
    ///
    /// # Errors
    /// When no port is free, or the certificate cannot be used.
    pub async fn start_tls(keys: &[&Key], leaf: &Leaf) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = CertificateDer::from(leaf.der.clone());
        let key = PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes())?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Self::begin(keys, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn begin(keys: &[&Key], tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/jwks.json", listener.local_addr()?);
        let shared = Arc::new(State {
            document: Mutex::new(key_set(keys)),
            away: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared), tls));
        Ok(Self { url, shared, serving })
    }

    /// Where they are.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Publishes other keys.
    pub fn publish(&self, keys: &[&Key]) {
        self.publish_text(&key_set(keys));
    }

    /// Publishes what may be no key set.
    pub fn publish_text(&self, document: &str) {
        document.clone_into(&mut self.shared.document.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Hangs up on everybody who asks, or answers again.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// How often it has been asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<State>, tls: Option<TlsAcceptor>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.asked.fetch_add(1, Ordering::SeqCst);
        if !shared.away.load(Ordering::SeqCst) {
            let document = shared.document.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    Some(tls) => answer(tls.accept(stream).await?, document).await,
                    None => answer(stream, document).await,
                }
            });
        }
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, document: String) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let found = head.starts_with(b"GET /jwks.json HTTP/1.1\r\n");
    let (status, body) = if found { ("200 OK", document) } else { ("404 Not Found", String::new()) };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    stream.flush().await
}
