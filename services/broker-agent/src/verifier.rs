//! The rustls client-certificate verifier over the live trust.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use catrust_device_trust::Refusal;

use crate::broker_trust::BrokerTrust;

/// Asks the trust of the moment about each full handshake; zero active CA
/// certificates refuse everybody.
///
/// rustls calls no verifier for a resumed session, and says nobody which CA vouched.
/// [`BrokerTrust::admit`] after the handshake is therefore not optional:
/// [`crate::TlsFront::accept`] does both.
pub struct DeviceVerifier {
    trust: Arc<BrokerTrust>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl DeviceVerifier {
    /// Makes a verifier over `trust`, for `ServerConfig`s of one's own.
    #[must_use]
    pub fn new(trust: Arc<BrokerTrust>) -> Self {
        Self { trust, algorithms: rustls::crypto::ring::default_provider().signature_verification_algorithms }
    }
}

impl fmt::Debug for DeviceVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceVerifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for DeviceVerifier {
    /// None: the set changes under a borrow, and a list of every customer's CA is
    /// nobody's business. Devices send the certificate that they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|der| CertificateDer::from(&**der))
            .collect();
        self.trust.current().admit(&chain, now).map_err(alert)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Chooses the alert that the device sees.
const fn alert(refusal: Refusal) -> Error {
    let reason = match refusal {
        Refusal::NoCertificate => return Error::NoCertificatesPresented,
        Refusal::ChainTooLong | Refusal::Malformed | Refusal::OldVersion => CertificateError::BadEncoding,
        Refusal::Inactive => CertificateError::Revoked,
        Refusal::Expired => CertificateError::Expired,
        Refusal::WrongPurpose => CertificateError::InvalidPurpose,
        Refusal::UnknownIssuer => CertificateError::UnknownIssuer,
        // Stale, too costly, and what a later version may add.
        _ => CertificateError::ApplicationVerificationFailure,
    };
    Error::InvalidCertificate(reason)
}
