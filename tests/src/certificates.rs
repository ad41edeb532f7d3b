//! Certificates of every kind, good and odd, made on the spot.

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use crate::program::run;

/// A CA with its key, as a customer holds it.
#[derive(Debug)]
pub struct Ca {
    params: CertificateParams,
    key: KeyPair,
    /// The certificate, PEM.
    pub pem: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Its serial number in the canonical spelling.
    pub sn: String,
}

/// A leaf certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate, PEM.
    pub pem: String,
    /// The private key, PEM.
    pub key_pem: String,
    /// The certificate, DER.
    pub der: Vec<u8>,
}

impl Ca {
    /// A self-signed CA with a random serial number.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn root(name: &str) -> anyhow::Result<Self> {
        Self::with(name, |_| {})
    }

    /// A self-signed CA, its parameters changed by `change` before it is signed.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> anyhow::Result<Self> {
        let mut params = ca_params(name);
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Self::assemble(params, key, &certificate)
    }

    /// An intermediate CA that this one signs.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn intermediate(&self, name: &str) -> anyhow::Result<Self> {
        let params = ca_params(name);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer())?;
        Self::assemble(params, key, &certificate)
    }

    /// Another self-signed certificate of the same key and name: a renewal.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn renewed(&self) -> anyhow::Result<Self> {
        let mut params = self.params.clone();
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
        let key = KeyPair::from_pem(&self.key.serialize_pem())?;
        let certificate = params.self_signed(&key)?;
        Self::assemble(params, key, &certificate)
    }

    /// The verification certificate: a leaf with `code` as common name.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn verification(&self, code: &str) -> anyhow::Result<String> {
        Ok(self.leaf_with(code, |_| {})?.pem)
    }

    /// A leaf that this CA signs, its parameters changed by `change`.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn leaf_with(
        &self,
        common_name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> anyhow::Result<Leaf> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.distinguished_name.remove(DnType::OrganizationName);
        params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2049, 12, 31);
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer())?;
        Ok(Leaf { pem: certificate.pem(), key_pem: key.serialize_pem(), der: certificate.der().to_vec() })
    }

    /// A certificate for a TLS server on 127.0.0.1.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn server(&self) -> anyhow::Result<Leaf> {
        self.leaf_with("localhost", |params| {
            params.subject_alt_names = vec![
                SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
                SanType::DnsName("localhost".try_into().expect("a plain name is IA5")),
            ];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// A certificate for a TLS client, named by a SPIFFE URI.
    ///
    /// # Errors
    /// When the certificate cannot be made or the URI is not ASCII.
    pub fn client(&self, uri: &str) -> anyhow::Result<Leaf> {
        let uri = uri.try_into()?;
        self.leaf_with("a client", |params| {
            params.subject_alt_names = vec![SanType::URI(uri)];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// The private key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    fn assemble(
        params: CertificateParams,
        key: KeyPair,
        signed: &rcgen::Certificate,
    ) -> anyhow::Result<Self> {
        let serial = params.serial_number.as_ref().context("every CA here has a chosen serial number")?;
        let sn = hex::encode_upper(serial.to_bytes());
        Ok(Self { pem: signed.pem(), der: signed.der().to_vec(), sn, params, key })
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, "Customer");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

/// 16 bytes, positive and without a leading zero byte: canonical as they are.
fn random_serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = 0x10 | (bytes[0] & 0x6f);
    bytes
}

/// A CA made by the `openssl` command, for what rcgen does not make.
#[derive(Debug)]
pub struct OpensslCa {
    directory: TempDir,
    /// The certificate, PEM.
    pub pem: String,
}

impl OpensslCa {
    /// Makes a self-signed CA; `key` as for `openssl req -newkey`, `extra` are more
    /// arguments of `openssl req`.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub async fn new(key: &[&str], extra: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let mut arguments =
            vec!["req", "-x509", "-nodes", "-subj", "/O=Customer/CN=openssl CA", "-days", "3650"];
        arguments.push("-newkey");
        arguments.extend(key);
        let (key_file, certificate_file) = (at("ca.key"), at("ca.pem"));
        arguments.extend(["-keyout", &key_file, "-out", &certificate_file]);
        arguments.extend(extra);
        run("openssl", arguments).await?.success()?;
        let pem = std::fs::read_to_string(&certificate_file)?;
        Ok(Self { directory, pem })
    }

    /// The verification certificate with `code` as common name.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub async fn verification(&self, code: &str) -> anyhow::Result<String> {
        let at = |name: &str| self.directory.path().join(name).to_string_lossy().into_owned();
        let (key, request, certificate) = (at("v.key"), at("v.csr"), at("v.pem"));
        let subject = format!("/CN={code}");
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let files = ["-keyout", &key, "-out", &request];
        let arguments = [&["req", "-new", "-nodes", "-subj", &subject][..], &new_key, &files].concat();
        run("openssl", arguments).await?.success()?;
        let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
        let arguments = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-days", "2"];
        run("openssl", [&arguments[..], &["-set_serial", "77", "-out", &certificate]].concat())
            .await?
            .success()?;
        Ok(std::fs::read_to_string(&certificate)?)
    }

    /// The serial number as `openssl x509 -serial` prints it.
    ///
    /// # Errors
    /// When `openssl` fails.
    pub async fn sn(&self) -> anyhow::Result<String> {
        let file = self.directory.path().join("ca.pem").to_string_lossy().into_owned();
        let printed = run("openssl", ["x509", "-noout", "-serial", "-in", &file]).await?.success()?.stdout;
        Ok(printed.trim().trim_start_matches("serial=").to_owned())
    }

    /// Where the key and certificate files are: `ca.key` and `ca.pem`.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

/// A name that no other test uses.
#[must_use]
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:016x}", rand::random::<u64>())
}

/// A fresh request id.
#[must_use]
pub fn request_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}
