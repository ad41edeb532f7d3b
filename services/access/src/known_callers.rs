//! Whose credentials are: the identities file's, the issuer's, or nobody's.
//!
//! | shown | whose |
//! |---|---|
//! | a token of the file | the entry's |
//! | a JWT | the one whom it names, unless the file has that name for another account |
//! | a client certificate | the entry's with its name |
//! | both | the token's, if the two belong together |
//!
//! A token of the file and a certificate belong together unless the certificate is another
//! principal's: one that nobody knows may still secure the connection. A JWT and a certificate
//! belong together where the token is bound to the certificate (RFC 8705 §3), or the
//! certificate is the same principal's. A JWT that is bound counts with its certificate only.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use catrust_domain::{Sha256, Timestamp};

use super::client_certificate::ClientCertificate;
use super::jwt::{MAX_TOKEN, TokenBearer, Tokens, looks_like_one};
use super::static_identities::{StaticEntry, StaticIdentities};
use super::{Authenticator, Credentials, Identity, InvalidCredentials};
use crate::identities::{IdentitiesError, PermissionSource};

/// Everybody who may call.
#[derive(Debug)]
pub struct KnownCallers {
    /// Whom the identities file knows.
    identities: ArcSwap<StaticIdentities>,
    /// Whom the issuer knows, where there is one.
    tokens: Option<Arc<Tokens>>,
}

/// One call's look at them: by one version of the file from its first question to its last.
struct CallerLookup<'a> {
    identities: &'a StaticIdentities,
    tokens: Option<&'a Tokens>,
    now: Timestamp,
}

impl KnownCallers {
    /// Those whom the issuer knows, and nobody of a file yet.
    #[must_use]
    pub fn new(tokens: Option<Arc<Tokens>>) -> Self {
        Self { identities: ArcSwap::default(), tokens }
    }

    /// Puts the text of the identities file in force. `path` is for messages only.
    ///
    /// # Errors
    /// [`IdentitiesError`] with the line of each problem; what was in force stays.
    pub fn read_identities(
        &self,
        text: &str,
        path: &Path,
        permissions: PermissionSource,
    ) -> Result<(), IdentitiesError> {
        let before = self.identities.load();
        self.replace(StaticIdentities::parse(text, path, permissions, &before)?);
        Ok(())
    }

    /// Puts a version of the file in force, and withdraws what it has not from who came by it.
    pub(super) fn replace(&self, identities: StaticIdentities) {
        let after = Arc::new(identities);
        let before = self.identities.swap(Arc::clone(&after));
        before.make_way_for(&after);
    }
}

impl Authenticator for KnownCallers {
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<Identity, InvalidCredentials> {
        let certificate = credentials.client_certificate;
        if certificate.is_some_and(|certificate| now >= certificate.expires_at) {
            return Err(InvalidCredentials::invalid("the client certificate of the connection has expired"));
        }
        let identities = self.identities.load();
        let look = CallerLookup { identities: &identities, tokens: self.tokens.as_deref(), now };
        match (credentials.bearer_token, certificate) {
            (None, None) => Err(InvalidCredentials::missing()),
            (None, Some(certificate)) => look.by_certificate(certificate),
            (Some(token), certificate) => look.by_token(token, certificate),
        }
    }
}

impl CallerLookup<'_> {
    fn entry_of(&self, certificate: &ClientCertificate) -> Option<Arc<StaticEntry>> {
        certificate.name.as_ref().and_then(|name| self.identities.by_certificate(name))
    }

    fn by_certificate(&self, certificate: &ClientCertificate) -> Result<Identity, InvalidCredentials> {
        let entry = self.entry_of(certificate);
        let entry =
            entry.ok_or_else(|| InvalidCredentials::invalid("nobody has the client certificate's name"))?;
        Ok(entry.identity(Some(certificate.expires_at)))
    }

    fn by_token(
        &self,
        token: &str,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Identity, InvalidCredentials> {
        if token.len() > MAX_TOKEN {
            return Err(InvalidCredentials::malformed("the token is too long"));
        }
        let hash = Sha256::of(token.as_bytes());
        if let Some(entry) = self.identities.by_token(&hash) {
            let other = certificate.and_then(|certificate| self.entry_of(certificate));
            if other.is_some_and(|other| other.principal != entry.principal) {
                return Err(InvalidCredentials::invalid(
                    "token and client certificate are of different principals",
                ));
            }
            return Ok(entry.identity(None));
        }
        match self.tokens {
            Some(tokens) if looks_like_one(token) => {
                let verified = tokens.verify(token, &hash, self.now)?;
                self.belong_together(&verified, certificate)?;
                self.by_verified(&verified, certificate)
            }
            _ => Err(InvalidCredentials::invalid("nobody has this token")),
        }
    }

    fn belong_together(
        &self,
        verified: &TokenBearer,
        certificate: Option<&ClientCertificate>,
    ) -> Result<(), InvalidCredentials> {
        let reason = match (verified.certificate, certificate) {
            (None, None) => return Ok(()),
            (Some(_), None) => "the token is bound to a client certificate, and the connection has none",
            (Some(bound), Some(certificate)) if bound != certificate.sha256 => {
                "the token is bound to another client certificate"
            }
            (bound, Some(certificate)) => match self.entry_of(certificate) {
                Some(entry) if entry.principal != verified.principal => {
                    "token and client certificate are of different principals"
                }
                None if bound.is_none() => {
                    "the token is not bound to the client certificate, which is not its principal's either"
                }
                Some(_) | None => return Ok(()),
            },
        };
        Err(InvalidCredentials::invalid(reason))
    }

    fn by_verified(
        &self,
        verified: &TokenBearer,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Identity, InvalidCredentials> {
        // Rate limit and audit trail know the name alone.
        if self.identities.account_of(&verified.principal).is_some_and(|known| *known != verified.account_id)
        {
            return Err(InvalidCredentials::invalid(
                "the identities file has the token's principal for another account",
            ));
        }
        let expires_at = verified.expires_at();
        Ok(Identity {
            principal: Arc::clone(&verified.principal),
            account_id: verified.account_id.clone(),
            operator: verified.operator,
            broker: verified.broker.clone(),
            entry: None,
            withdrawn: Arc::clone(&verified.withdrawn),
            expires_at: Some(
                certificate.map_or(expires_at, |certificate| expires_at.min(certificate.expires_at)),
            ),
        })
    }
}
