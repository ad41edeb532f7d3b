//! Identities with their grants in a file: who calls is found by the hash of the
//! bearer token or by the name in the client certificate; what they may do is what
//! their entries allow, unless there is a policy folder.

use std::path::Path;
use std::sync::Arc;

use catrust_domain::Sha256;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::prelude::FromDer as _;

use super::{Action, Authenticator, Authorizer, Circumstances, Credentials, Denied, Identity, Resource};
use crate::certificate::rfc4514;
use crate::config::{ConfigError, Identities, PermissionSource};

/// The identities of one file, as read at the start.
#[derive(Debug)]
pub struct StaticIdentities {
    identities: Identities,
    version: Arc<str>,
}

impl StaticIdentities {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of each problem.
    pub fn load(path: &Path, permissions: PermissionSource) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, source))?;
        Self::parse(&text, path, permissions)
    }

    fn parse(text: &str, path: &Path, permissions: PermissionSource) -> Result<Self, ConfigError> {
        let identities = Identities::parse(text, path, permissions)?;
        let hash = Sha256::of(text.as_bytes()).to_string();
        Ok(Self { identities, version: format!("static-{}", &hash[..16]).into() })
    }

    fn entry_of(&self, credentials: &Credentials<'_>) -> Result<usize, &'static str> {
        let entries = self.identities.entries();
        let by_token = credentials.bearer_token.map(|token| self.identities.by_token(token));
        let by_certificate = credentials
            .client_certificate
            .map(|der| certificate_name(der).and_then(|name| self.identities.by_certificate(&name)));
        let entry = match (by_token, by_certificate) {
            (None, None) => {
                return Err("no credentials: send `authorization: Bearer TOKEN`, or a client certificate");
            }
            // A certificate that is no identity may still secure the connection of
            // one that brings a token. Two identities at once are a mistake.
            (Some(Some(token)), Some(Some(certificate)))
                if entries[token].principal != entries[certificate].principal =>
            {
                return Err("the token and the client certificate belong to different principals");
            }
            (Some(entry), _) | (None, Some(entry)) => entry,
        };
        entry.ok_or("the credentials are not valid here")
    }
}

impl Authenticator for StaticIdentities {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, &'static str> {
        let index = self.entry_of(credentials)?;
        let entry = &self.identities.entries()[index];
        Ok(Identity {
            principal: Arc::from(entry.principal.as_str()),
            account_id: entry.account_id.clone(),
            operator: entry.operator,
            entry: index,
        })
    }
}

impl Authorizer for StaticIdentities {
    fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        resource: &Resource<'_>,
        _: &Circumstances,
    ) -> Result<Arc<str>, Denied> {
        let entry = self.identities.entries().get(identity.entry);
        let resource = resource.to_string();
        let allowed = |action: &Action| entry.is_some_and(|entry| entry.allows(action.name(), &resource));
        match action.with_dependent().find(|action| !allowed(action)) {
            None => Ok(Arc::clone(&self.version)),
            Some(action) => Err(Denied { action, reason: "its entry does not allow it".to_owned() }),
        }
    }
}

/// The SPIFFE id of a certificate, else its subject (RFC 4514). `None` for one with
/// more than one URI (X.509-SVID §2: exactly one).
fn certificate_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let alternative_names = certificate
        .get_extension_unique(&x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME)
        .ok()?
        .map(X509Extension::parsed_extension);
    if let Some(ParsedExtension::SubjectAlternativeName(names)) = alternative_names {
        let mut ids = names.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(*uri),
            _ => None,
        });
        match (ids.next(), ids.next()) {
            (Some(id), None) => return Some(id.to_owned()),
            (Some(_), Some(_)) => return None,
            (None, _) => {}
        }
    }
    Some(rfc4514(certificate.subject())).filter(|subject| !subject.is_empty())
}

#[cfg(test)]
mod tests {
    use catrust_domain::Timestamp;

    use super::*;

    const CIRCUMSTANCES: Circumstances =
        Circumstances { source_address: None, now: Timestamp::from_micros(0) };

    fn identities() -> StaticIdentities {
        let text = format!(
            r#"
            [[identity]]
            principal = "alice"
            account_id = "1"
            token_sha256 = "{}"
            allow = ["mq:Get*"]
            resources = ["acs:mq:*:1:*"]

            [[identity]]
            principal = "svc"
            account_id = "2"
            certificate = "spiffe://example.org/svc"
            allow = ["mq:*"]
            resources = ["acs:mq:*:*:*"]
            "#,
            Sha256::of(b"secret-token")
        );
        StaticIdentities::parse(&text, Path::new("identities.toml"), PermissionSource::Identities).unwrap()
    }

    fn certificate(spiffe: &str) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(spiffe.try_into().unwrap())];
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn tokens_and_certificates_name_their_principals() {
        let identities = identities();
        let by = |bearer_token, client_certificate| {
            identities
                .authenticate(&Credentials { bearer_token, client_certificate })
                .map(|i| i.principal.to_string())
        };
        let svc = certificate("spiffe://example.org/svc");
        let stranger = certificate("spiffe://example.org/other");
        assert_eq!(by(Some("secret-token"), None).as_deref(), Ok("alice"));
        assert_eq!(by(None, Some(&svc)).as_deref(), Ok("svc"));
        assert_eq!(by(Some("secret-token"), Some(&stranger)).as_deref(), Ok("alice"));
        assert!(by(Some("secret-token"), Some(&svc)).is_err(), "two principals at once");
        assert!(by(Some("wrong"), Some(&svc)).is_err(), "a wrong token is not made good by a certificate");
        assert!(by(None, Some(&stranger)).is_err());
        assert!(by(None, Some(b"no certificate")).is_err());
        assert!(by(None, None).is_err());
    }

    #[test]
    fn a_credential_has_the_grants_of_its_own_entry_only() {
        let entry = |token: &[u8], allow: &str| {
            let hash = Sha256::of(token);
            format!(
                "[[identity]]\nprincipal = \"p\"\naccount_id = \"1\"\ntoken_sha256 = \"{hash}\"\nallow = \
                 [\"{allow}\"]\nresources = [\"acs:mq:*:*:*\"]\n"
            )
        };
        let text = entry(b"old", "mq:*") + &entry(b"new", "mq:GetCaCertificate");
        let identities =
            StaticIdentities::parse(&text, Path::new("i.toml"), PermissionSource::Identities).unwrap();
        let everything = Resource { region_id: None, account_id: None, instance_id: None };
        let may = |token, action| {
            let credentials = Credentials { bearer_token: Some(token), client_certificate: None };
            let identity = identities.authenticate(&credentials).unwrap();
            identities.authorize(&identity, action, &everything, &CIRCUMSTANCES).is_ok()
        };
        assert!(may("old", Action::UpdateInstance) && may("new", Action::GetCaCertificate));
        assert!(!may("new", Action::UpdateInstance));
    }

    #[test]
    fn nothing_is_allowed_but_what_the_entries_say() {
        let identities = identities();
        let alice = identities
            .authenticate(&Credentials { bearer_token: Some("secret-token"), client_certificate: None })
            .unwrap();
        let (region, own, other) = ("r".parse().unwrap(), "1".parse().unwrap(), "2".parse().unwrap());
        let instance = "i".parse().unwrap();
        let on = |account| Resource {
            region_id: Some(&region),
            account_id: Some(account),
            instance_id: Some(&instance),
        };
        let may =
            |action, account| identities.authorize(&alice, action, &on(account), &CIRCUMSTANCES).is_ok();
        assert!(may(Action::GetCaCertificate, &own));
        assert!(!may(Action::GetCaCertificate, &other));
        assert!(!may(Action::DeleteCaCertificate, &own));
    }
}
