//! What may be on a path, found by names alone: no signature is checked here.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::anchor::Anchor;
use crate::certificate::Certificate;
use crate::refusal::Refusal;
use crate::trust_set::TrustSet;
use crate::verify::MAX_NAME_COMPARISONS;

/// Most active CA certificates of one subject, with different keys, that are tried for a
/// chain. Those go first whose key identifier the chain names
/// (`authorityKeyIdentifier`), then those without one, and among equals those that are
/// valid longest.
///
/// So a device whose chain names the keys of its issuers gets in whatever number of other
/// CA certificates bear the subject, as long as no more than this bear that very key
/// identifier as well. One whose chain names none gets in while there are no more than
/// this altogether. Identifiers are chosen by whoever makes a certificate: who may
/// register CA certificates in an instance can use up these places, and then the device
/// hears [`Refusal::TooCostly`].
pub const MAX_NAMESAKES: usize = 8;

/// Certificates and anchors that the names lead to.
#[derive(Debug)]
pub(crate) struct Candidates<'c, 's> {
    /// The usable ones of those that came with the device's, the likeliest first.
    pub(crate) intermediates: Vec<(Certificate<'c>, &'c CertificateDer<'c>)>,
    /// Anchors whose key some certificate of the chain names, then the others.
    pub(crate) anchors: Vec<&'s Arc<Anchor>>,
    /// Number of the former.
    pub(crate) named: usize,
    /// What to tell the device where there is no path among these.
    pub(crate) otherwise: Refusal,
}

/// What the names led to and may not be used.
#[derive(Debug, Default)]
struct Obstacles {
    inactive: bool,
    expired: bool,
    too_costly: bool,
}

impl Obstacles {
    const fn refusal(&self) -> Refusal {
        match self {
            Self { inactive: true, .. } => Refusal::Inactive,
            Self { too_costly: true, .. } => Refusal::TooCostly,
            Self { expired: true, .. } => Refusal::Expired,
            _ => Refusal::UnknownIssuer,
        }
    }
}

impl TrustSet {
    /// Follows names upwards from `leaf`.
    ///
    /// # Errors
    /// They lead to no anchor that may vouch at `now`: the refusal follows from that, and
    /// the signature of a device that is refused anyway is not worth the time, least of
    /// all when all devices of a CA come back at once.
    pub(crate) fn candidates<'c>(
        &self,
        leaf: &Certificate<'c>,
        shown: &'c [CertificateDer<'c>],
        now: UnixTime,
    ) -> Result<Candidates<'c, '_>, Refusal> {
        let mut obstacles = Obstacles::default();
        let mut names = vec![leaf.issuer];
        let mut intermediates = self.intermediates(&mut names, shown, now, &mut obstacles);
        let key_ids: Vec<&[u8]> = std::iter::once(leaf)
            .chain(intermediates.iter().map(|(certificate, _)| certificate))
            .filter_map(|certificate| certificate.authority_key_id)
            .collect();
        let is_named = |key_id: Option<&[u8]>| key_id.is_some_and(|key_id| key_ids.contains(&key_id));
        intermediates.sort_by_key(|(certificate, _)| !is_named(certificate.key_id));
        let constrained = Constraints::of(leaf, &intermediates);
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for name in names {
            obstacles.inactive |= self.inactive_subjects.contains(name);
            for anchor in self.namesakes(name, &is_named, &constrained, now, &mut obstacles) {
                let group = if is_named(anchor.key_id.as_deref()) { &mut named } else { &mut others };
                group.push(anchor);
            }
        }
        let number = named.len();
        named.append(&mut others);
        let otherwise = obstacles.refusal();
        if named.is_empty() {
            return Err(otherwise);
        }
        Ok(Candidates { intermediates, anchors: named, named: number, otherwise })
    }

    /// Those of `shown` that the names lead to. Others are passed over, malformed ones
    /// too, since they can be on no path; `names` gets the issuers of the usable ones.
    fn intermediates<'c>(
        &self,
        names: &mut Vec<&'c [u8]>,
        shown: &'c [CertificateDer<'c>],
        now: UnixTime,
        obstacles: &mut Obstacles,
    ) -> Vec<(Certificate<'c>, &'c CertificateDer<'c>)> {
        let mut left: Vec<_> = shown
            .iter()
            .enumerate()
            .filter(|(place, der)| !shown[..*place].contains(der))
            .filter_map(|(_, der)| Some((Certificate::read(der).ok()?, der)))
            .collect();
        let mut usable = Vec::new();
        let mut next = 0;
        while let Some(name) = names.get(next).copied() {
            next += 1;
            let (met, rest): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|(certificate, _)| certificate.subject == name);
            left = rest;
            for (certificate, der) in met {
                if self.denies(&certificate.id) {
                    obstacles.inactive = true;
                } else if !certificate.validity.contains(now) {
                    obstacles.expired = true;
                } else if certificate.is_moderate
                    && certificate.may_issue
                    && webpki::EndEntityCert::try_from(der).is_ok()
                {
                    if !names.contains(&certificate.issuer) {
                        names.push(certificate.issuer);
                    }
                    usable.push((certificate, der));
                }
            }
        }
        usable
    }

    /// The anchors of one subject that may vouch: those whose key is named first, then
    /// those that do not say how their key is named. Of twins, which are one to webpki,
    /// the one that is valid longest vouches.
    fn namesakes(
        &self,
        name: &[u8],
        is_named: &impl Fn(Option<&[u8]>) -> bool,
        constrained: &Constraints,
        now: UnixTime,
        obstacles: &mut Obstacles,
    ) -> Vec<&Arc<Anchor>> {
        let mut usable: Vec<&Arc<Anchor>> = Vec::new();
        for anchor in self.active_by_subject.get(name).into_iter().flatten() {
            if self.denies(&anchor.id) {
                obstacles.inactive = true;
            } else if !anchor.validity.contains(now) {
                obstacles.expired = true;
            } else if !constrained.permit(anchor) {
                obstacles.too_costly = true;
            } else {
                usable.push(anchor);
            }
        }
        usable.sort_by_key(|anchor| match anchor.key_id.as_deref() {
            key_id if is_named(key_id) => 0,
            None => 1,
            Some(_) => 2,
        });
        let mut chosen: Vec<&Arc<Anchor>> = Vec::new();
        for anchor in usable {
            if chosen.iter().any(|other| other.trust_anchor == anchor.trust_anchor) {
                continue;
            }
            if chosen.len() == MAX_NAMESAKES {
                obstacles.too_costly = true;
                break;
            }
            chosen.push(anchor);
        }
        chosen
    }
}

/// What may have to be compared with what: each name constraint on a path with each name
/// below it. webpki would do so 250,000 times.
#[derive(Debug)]
struct Constraints {
    names: usize,
    of_intermediates: usize,
}

impl Constraints {
    fn of(leaf: &Certificate<'_>, intermediates: &[(Certificate<'_>, &CertificateDer<'_>)]) -> Self {
        let of = |count: fn(&Certificate<'_>) -> usize| -> usize {
            intermediates.iter().map(|(certificate, _)| count(certificate)).sum()
        };
        Self {
            names: leaf.names + of(|certificate| certificate.names),
            of_intermediates: of(|certificate| certificate.name_constraints),
        }
    }

    /// Whether paths below `anchor` can be checked at a bounded cost. Others are not kept
    /// out by an anchor for which the answer is no.
    fn permit(&self, anchor: &Anchor) -> bool {
        let constraints = anchor.name_constraints + self.of_intermediates;
        constraints.saturating_mul(self.names) <= MAX_NAME_COMPARISONS
    }
}
