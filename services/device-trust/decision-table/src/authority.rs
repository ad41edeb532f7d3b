//! CAs and devices, made for one row.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use catrust_domain::Sha256;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

/// A CA: its certificate and its key.
#[derive(Clone)]
pub struct Authority {
    params: CertificateParams,
    key: Arc<KeyPair>,
    /// The certificate.
    pub der: CertificateDer<'static>,
}

/// A device: what it shows, and its key.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its certificate, then what it shows besides.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS #8.
    pub key: Vec<u8>,
}

/// Seconds from now at which something is valid, both ends.
pub type Span = (i64, i64);
/// From yesterday until tomorrow.
pub const NOW: Span = (-86_400, 86_400);
/// Until yesterday.
pub const PAST: Span = (-172_800, -86_400);
/// From tomorrow.
pub const FUTURE: Span = (86_400, 172_800);

/// What `span` is in a certificate.
fn set_validity(params: &mut CertificateParams, span: Span) {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = |seconds: i64| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch.saturating_add_signed(seconds))
    };
    (params.not_before, params.not_after) = (at(span.0), at(span.1));
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, NOW);
    params
}

#[expect(clippy::unwrap_used, reason = "the parameters are ours: what fails here fails the test")]
impl Authority {
    /// A self-signed CA.
    pub fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// A self-signed CA that is valid in `span`.
    pub fn valid(name: &str, span: Span) -> Self {
        Self::with(name, |params| set_validity(params, span))
    }

    /// A self-signed CA whose parameters `change` alters.
    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        Self::self_signed(params, Arc::new(KeyPair::generate().unwrap()))
    }

    fn self_signed(params: CertificateParams, key: Arc<KeyPair>) -> Self {
        let der = params.self_signed(&*key).unwrap().into();
        Self { params, key, der }
    }

    /// Another certificate of the same subject and key.
    pub fn renewed(&self) -> Self {
        Self::self_signed(self.params.clone(), Arc::clone(&self.key))
    }

    /// Another key under the same subject.
    pub fn namesake(&self) -> Self {
        Self::self_signed(self.params.clone(), Arc::new(KeyPair::generate().unwrap()))
    }

    /// A CA below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |_| {})
    }

    /// A CA below this one whose parameters `change` alters.
    pub fn intermediate_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut params, key) = (ca_params(name), Arc::new(KeyPair::generate().unwrap()));
        change(&mut params);
        self.sign(params, key)
    }

    /// A CA below this one that is valid in `span`.
    pub fn intermediate_valid(&self, name: &str, span: Span) -> Self {
        self.intermediate_with(name, |params| set_validity(params, span))
    }

    /// This CA's subject and key, signed by `other`.
    pub fn cross_signed_by(&self, other: &Self) -> Self {
        other.sign(self.params.clone(), Arc::clone(&self.key))
    }

    fn sign(&self, params: CertificateParams, key: Arc<KeyPair>) -> Self {
        let der = params.signed_by(&*key, &self.issuer()).unwrap().into();
        Self { params, key, der }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A device of this CA that shows no other certificate.
    pub fn device(&self, common_name: &str) -> Device {
        self.device_with(common_name, |_| {})
    }

    /// A device whose certificate is valid in `span`.
    pub fn device_valid(&self, common_name: &str, span: Span) -> Device {
        self.device_with(common_name, |params| set_validity(params, span))
    }

    /// A device whose certificate parameters `change` alters.
    pub fn device_with(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Device {
        self.issue(common_name, &KeyPair::generate().unwrap(), change)
    }

    /// A device of this CA that has the key of `other`.
    pub fn device_with_key_of(&self, other: &Self, common_name: &str) -> Device {
        self.issue(common_name, &other.key, |_| {})
    }

    fn issue(&self, common_name: &str, key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Device {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, NOW);
        change(&mut params);
        let der = params.signed_by(key, &self.issuer()).unwrap().into();
        Device { chain: vec![der], key: key.serialize_der() }
    }

    /// This CA's own certificate, shown as a device's.
    pub fn as_device(&self) -> Device {
        Device { chain: vec![self.der.clone()], key: self.key.serialize_der() }
    }

    /// SHA-256 of the certificate.
    pub fn sha256(&self) -> Sha256 {
        Sha256::of(&self.der)
    }
}

impl Device {
    /// This device, showing `others` as well.
    #[must_use]
    pub fn showing<'a>(mut self, others: impl IntoIterator<Item = &'a Authority>) -> Self {
        self.chain.extend(others.into_iter().map(|other| other.der.clone()));
        self
    }

    /// The user name of a device without a usable common name.
    pub fn digest_name(&self) -> String {
        format!("sha256-{}", Sha256::of(&self.chain[0]))
    }
}
