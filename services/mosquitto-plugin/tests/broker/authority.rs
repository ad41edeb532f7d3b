//! Certificate authorities and devices, made on the spot.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};

/// A CA with its key.
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// The certificate, PEM.
    pub pem: String,
}

/// A device's certificate with its key.
pub struct Device {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// The certificate, PEM.
    pub pem: String,
    /// The private key, PKCS #8 DER.
    pub key_der: Vec<u8>,
    /// The private key, PEM.
    pub key_pem: String,
}

impl Authority {
    /// A self-signed CA, valid for long.
    pub fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// A self-signed CA whose parameters `change` alters.
    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        Self::self_signed(params, KeyPair::generate().unwrap())
    }

    fn self_signed(mut params: CertificateParams, key: KeyPair) -> Self {
        params.serial_number = Some(serial());
        let certificate = params.self_signed(&key).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    fn copy_of_key(&self) -> KeyPair {
        KeyPair::from_pem(&self.key.serialize_pem()).unwrap()
    }

    /// Another certificate of the same key and name: a renewal.
    pub fn renewed(&self) -> Self {
        Self::self_signed(self.params.clone(), self.copy_of_key())
    }

    /// The key, PEM.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// An intermediate CA below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let params = ca_params(name);
        let key = KeyPair::generate().unwrap();
        self.sign_authority(params, key)
    }

    /// This CA's key and name, signed by another one.
    pub fn cross_signed_by(&self, other: &Self) -> Self {
        other.sign_authority(self.params.clone(), self.copy_of_key())
    }

    fn sign_authority(&self, mut params: CertificateParams, key: KeyPair) -> Self {
        params.serial_number = Some(serial());
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    /// A device of this CA.
    pub fn device(&self, common_name: &str) -> Device {
        self.device_with(common_name, |_| {})
    }

    /// A device whose certificate parameters `change` alters.
    pub fn device_with(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Device {
        self.sign_device(common_name, KeyPair::generate().unwrap(), change)
    }

    fn sign_device(
        &self,
        common_name: &str,
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Device {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(serial());
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2049, 12, 31);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer()).unwrap();
        Device {
            der: certificate.der().to_vec(),
            pem: certificate.pem(),
            key_der: key.serialize_der(),
            key_pem: key.serialize_pem(),
        }
    }

    /// A device of this CA that has the key of `other`.
    pub fn device_with_key_of(&self, other: &Self, common_name: &str) -> Device {
        self.sign_device(common_name, other.copy_of_key(), |_| {})
    }

    /// A certificate for a TLS server on 127.0.0.1.
    pub fn server(&self) -> Device {
        self.device_with("localhost", |params| {
            params.subject_alt_names = vec![SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

fn serial() -> SerialNumber {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    SerialNumber::from(NEXT.fetch_add(1, Ordering::Relaxed))
}
