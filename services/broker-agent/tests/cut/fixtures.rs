//! CAs, devices and trust, made for one test.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use catrust_device_trust::Certificate;
use catrust_domain::{
    CaState, CertificateFacts, InactivationScope, Sha256, Timestamp, TrustBundle, TrustEntry,
};
use catrust_trust_feed::agent::{AgentTrust, Freshness};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub const ACTIVE: CaState = CaState::Active;
pub const INACTIVE: CaState = CaState::Inactive(InactivationScope::Key);
pub const SUPERSEDED: CaState = CaState::Inactive(InactivationScope::Certificate);

/// A CA: its key, its certificate, and what to send along below it.
pub struct Ca {
    params: CertificateParams,
    key: Arc<KeyPair>,
    pub der: CertificateDer<'static>,
    pub pem: String,
    facts: Arc<CertificateFacts>,
    /// Certificates that its devices send after their own.
    intermediates: Vec<CertificateDer<'static>>,
}

/// A device: what it shows, and its key.
#[derive(Clone)]
pub struct Device {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
}

impl Device {
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::with(ca_params(name), Arc::new(KeyPair::generate().unwrap()))
    }

    /// A CA whose certificate is valid until `end`.
    pub fn valid_until(name: &str, end: SystemTime) -> Self {
        let mut params = ca_params(name);
        let since_epoch = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch);
        Self::with(params, Arc::new(KeyPair::generate().unwrap()))
    }

    fn with(params: CertificateParams, key: Arc<KeyPair>) -> Self {
        let der = params.self_signed(&*key).unwrap().into();
        Self::of(params, key, der, Vec::new())
    }

    fn of(
        params: CertificateParams,
        key: Arc<KeyPair>,
        der: CertificateDer<'static>,
        intermediates: Vec<CertificateDer<'static>>,
    ) -> Self {
        let pem = pem("CERTIFICATE", &der);
        let facts = facts(&der, Sha256::of(&key.subject_public_key_info()));
        Self { params, key, der, pem, facts: Arc::new(facts), intermediates }
    }

    /// Another certificate of the same subject and key.
    pub fn renewed(&self) -> Self {
        Self::with(self.params.clone(), Arc::clone(&self.key))
    }

    /// Another key under the same subject.
    pub fn namesake(&self) -> Self {
        Self::with(self.params.clone(), Arc::new(KeyPair::generate().unwrap()))
    }

    /// An intermediate CA below this one; its devices send its certificate.
    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (ca_params(name), Arc::new(KeyPair::generate().unwrap()));
        let der: CertificateDer<'static> = params.signed_by(&*key, &self.issuer()).unwrap().into();
        let intermediates = [vec![der.clone()], self.intermediates.clone()].concat();
        Self::of(params, key, der, intermediates)
    }

    /// This CA's certificate as `other` signs it: same subject and key.
    pub fn cross_signed_by(&self, other: &Self) -> CertificateDer<'static> {
        self.params.signed_by(&*self.key, &other.issuer()).unwrap().into()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    pub fn device(&self, name: &str) -> Device {
        self.issue(name, true)
    }

    /// A device whose certificate does not name its issuer's key.
    pub fn device_without_key_id(&self, name: &str) -> Device {
        self.issue(name, false)
    }

    fn issue(&self, name: &str, key_id: bool) -> Device {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = key_id;
        let key = KeyPair::generate().unwrap();
        let leaf: CertificateDer<'static> = params.signed_by(&key, &self.issuer()).unwrap().into();
        let chain = [vec![leaf], self.intermediates.clone()].concat();
        Device { chain, key: key.serialize_der() }
    }

    /// A device certificate of `issuer` for this CA's own key.
    pub fn as_device_of(&self, issuer: &Self) -> Device {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "thief");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf: CertificateDer<'static> = params.signed_by(&*self.key, &issuer.issuer()).unwrap().into();
        Device { chain: vec![leaf], key: self.key.serialize_der() }
    }

    /// A server certificate for 127.0.0.1, and its key, as PEM.
    pub fn server(&self) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let der: CertificateDer<'static> = params.signed_by(&key, &self.issuer()).unwrap().into();
        (pem("CERTIFICATE", &der), key.serialize_pem())
    }

    pub fn sha256(&self) -> Sha256 {
        self.facts.sha256
    }

    pub fn entry(&self, state: CaState) -> TrustEntry {
        TrustEntry { facts: Arc::clone(&self.facts), state }
    }
}

/// The trust of an instance where the CAs have these states.
pub fn trust(revision: u64, states: &[(&Ca, CaState)]) -> AgentTrust {
    bundle(revision, states.iter().map(|(ca, state)| ca.entry(*state)).collect())
}

/// The same, of certificates alone.
pub fn trust_of(revision: u64, states: &[(&CertificateDer<'static>, CaState)]) -> AgentTrust {
    let entry = |(der, state): &(&CertificateDer<'static>, CaState)| {
        let id = Certificate::read(der).unwrap().id;
        TrustEntry { facts: Arc::new(facts(der, id.spki_sha256)), state: *state }
    };
    bundle(revision, states.iter().map(entry).collect())
}

fn bundle(revision: u64, mut entries: Vec<TrustEntry>) -> AgentTrust {
    entries.sort_by_key(|entry| entry.facts.sha256);
    let bundle = TrustBundle {
        instance_id: "fleet".parse().unwrap(),
        revision,
        position: revision,
        digest: TrustBundle::compute_digest(&entries),
        entries,
    };
    AgentTrust {
        bundle: Arc::new(bundle),
        freshness: Freshness::Fresh,
        takes_back: false,
        with_will: false,
        reason: String::new(),
    }
}

fn facts(der: &CertificateDer<'_>, spki_sha256: Sha256) -> CertificateFacts {
    CertificateFacts {
        sn: "01".parse().unwrap(),
        sha256: Sha256::of(der),
        spki_sha256,
        subject: String::new(),
        subject_key_id: String::new(),
        issuer: String::new(),
        not_before: Timestamp::from_micros(0),
        not_after: Timestamp::from_micros(0),
        ca_content: pem("CERTIFICATE", der),
    }
}

/// PEM by `openssl`-compatible lines.
pub fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for chunk in der.chunks(3) {
        let bytes = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for index in 0..4 {
            if index <= chunk.len() {
                base64.push(char::from(DIGITS[(bits >> (18 - 6 * index)) as usize & 63]));
            } else {
                base64.push('=');
            }
        }
    }
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
