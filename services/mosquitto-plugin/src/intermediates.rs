//! Intermediate certificates that were on a verified path.
//!
//! In the TLS handshake a device shows its chain; at CONNECT, and in a resumed session,
//! the broker's plugin interface gives the leaf alone. So what was needed once is kept.
//! It is no trust: a path over a kept intermediate is verified like any other.

use std::collections::{HashMap, HashSet, VecDeque};

use catrust_domain::Sha256;
use rustls_pki_types::CertificateDer;

use crate::certificate::Certificate;

/// Most intermediates kept for one CA certificate: what a customer makes its devices
/// show must not fill the broker's memory, nor push out those of another customer.
const MAX_PER_ANCHOR: usize = 64;
/// Longest chain of names that is followed.
const MAX_DEPTH: usize = 6;

#[derive(Debug)]
struct Kept {
    sha256: Sha256,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    der: Vec<u8>,
}

/// The kept intermediates.
#[derive(Debug, Default)]
pub struct Intermediates {
    by_anchor: HashMap<Sha256, VecDeque<Kept>>,
}

/// What may be on the paths of one leaf.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Intermediates.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Subjects, DER, that an anchor may have; each once.
    pub issuers: Vec<Vec<u8>>,
}

impl Intermediates {
    /// Keeps the intermediates of a path that `anchor` vouched for; the oldest ones of
    /// that anchor go first when there are too many.
    pub fn learn(&mut self, anchor: Sha256, path: &[Vec<u8>]) {
        for der in path {
            let kept = self.by_anchor.entry(anchor).or_default();
            let sha256 = Sha256::of(der);
            let Ok(certificate) = Certificate::parse(der) else { continue };
            if kept.iter().any(|known| known.sha256 == sha256) {
                continue;
            }
            if kept.len() == MAX_PER_ANCHOR {
                kept.pop_front();
            }
            let Certificate { subject, issuer, .. } = certificate;
            kept.push_back(Kept { sha256, subject, issuer, der: der.clone() });
        }
    }

    /// Forgets those of the anchors that `keep` says no to.
    pub fn retain(&mut self, keep: impl Fn(&Sha256) -> bool) {
        self.by_anchor.retain(|anchor, _| keep(anchor));
    }

    /// Collects what may be on a path from a leaf issued by `issuer`: all of
    /// `presented`, and what is kept under the names that are met on the way.
    #[must_use]
    pub fn candidates(&self, issuer: &[u8], presented: &[Vec<u8>]) -> Candidates {
        let mut found = Candidates::default();
        let mut seen = HashSet::new();
        let mut names = vec![issuer.to_vec()];
        for der in presented {
            if let Ok(certificate) = Certificate::parse(der) {
                names.push(certificate.issuer);
                found.certificates.push(CertificateDer::from(der.clone()));
            }
        }
        for _ in 0..MAX_DEPTH {
            let fresh: Vec<_> = names.drain(..).filter(|name| seen.insert(name.clone())).collect();
            for name in &fresh {
                for kept in self.by_anchor.values().flatten().filter(|kept| kept.subject == *name) {
                    names.push(kept.issuer.clone());
                    found.certificates.push(CertificateDer::from(kept.der.clone()));
                }
            }
            found.issuers.extend(fresh);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Authority;

    #[test]
    fn a_chain_of_names_is_followed_to_the_anchor() {
        let root = Authority::new("R");
        let upper = root.intermediate("I1");
        let lower = upper.intermediate("I2");
        let leaf = Certificate::parse(&lower.device("d").der).unwrap();
        let mut known = Intermediates::default();
        assert_eq!(known.candidates(&leaf.issuer, &[]).issuers.len(), 1);
        known.learn(Sha256::of(&root.der), &[lower.der.clone(), upper.der.clone()]);
        let found = known.candidates(&leaf.issuer, &[]);
        assert_eq!(found.certificates.len(), 2);
        assert_eq!(found.issuers.last().unwrap(), &Certificate::parse(&root.der).unwrap().subject);
        known.retain(|_| false);
        assert!(known.candidates(&leaf.issuer, &[]).certificates.is_empty());
    }

    #[test]
    fn one_customer_cannot_push_out_the_intermediates_of_another() {
        let (one, other) = (Authority::new("R1"), Authority::new("R2"));
        let precious = one.intermediate("I");
        let issuer = Certificate::parse(&precious.der).unwrap().subject;
        let mut known = Intermediates::default();
        known.learn(Sha256::of(&one.der), std::slice::from_ref(&precious.der));
        let many: Vec<_> =
            (0..=MAX_PER_ANCHOR).map(|number| other.intermediate(&format!("J{number}")).der).collect();
        known.learn(Sha256::of(&other.der), &many);
        assert_eq!(known.candidates(&issuer, &[]).certificates.len(), 1);
        let first = Certificate::parse(&many[0]).unwrap().subject;
        assert!(known.candidates(&first, &[]).certificates.is_empty(), "the oldest is kept for ever");
        let last = Certificate::parse(&many[MAX_PER_ANCHOR]).unwrap().subject;
        assert_eq!(known.candidates(&last, &[]).certificates.len(), 1);
    }

    #[test]
    fn names_that_go_in_circles_come_to_an_end() {
        let (one, other) = (Authority::new("X"), Authority::new("Y"));
        let circle = [one.cross_signed_by(&other).der, other.cross_signed_by(&one).der];
        let leaf = Certificate::parse(&one.device("d").der).unwrap();
        let found = Intermediates::default().candidates(&leaf.issuer, &circle);
        assert_eq!(found.certificates.len(), 2);
        assert_eq!(found.issuers.len(), 2);
    }
}
