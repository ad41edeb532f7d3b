//! What devices showed in their handshakes besides their own certificate.
//!
//! At CONNECT, and in a resumed session, the broker's plugin interface gives the device's
//! own certificate alone. So what came with it is remembered, device by device: what one
//! device showed is never tried for another one, which could otherwise be kept out by
//! certificates that somebody else had put in its way. It is no trust: a remembered chain
//! is verified like any other.
//!
//! A chain is verified before the peer has shown that it has the key, and certificates are
//! no secret: a stranger can show those of a device with others of his own. So nothing is
//! forgotten for what is shown later, certificates of a verified path come first, and when
//! there are too many different sets only these are remembered: they need a signature of
//! the CA's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use catrust_device_trust::{MAX_INTERMEDIATES, TrustPath};
use catrust_domain::Sha256;
use rustls_pki_types::CertificateDer;

/// Most different sets of intermediates, as many again that are paths, and most devices,
/// remembered for one CA certificate: what a customer makes its devices show must not fill
/// the broker's memory (4 MiB here at most), nor push out those of another customer.
const MAX_SHOWN: usize = 128;
const MAX_DEVICES: usize = 16 * 1024;

type Intermediates = [CertificateDer<'static>];

#[derive(Debug, Default)]
struct BelowAnchor {
    shown: Sets,
    paths: Sets,
    by_device: HashMap<Sha256, Arc<Intermediates>>,
    /// The oldest first.
    devices: VecDeque<Sha256>,
}

/// Sets that devices share, each for as long as one of them has it.
#[derive(Debug, Default)]
struct Sets(Vec<Weak<Intermediates>>);

/// The remembered intermediates.
#[derive(Debug, Default)]
pub struct ShownChains {
    by_anchor: HashMap<Sha256, BelowAnchor>,
    anchor_of: HashMap<Sha256, Sha256>,
}

impl ShownChains {
    /// Remembers what came with a device that was trusted, besides what came with it
    /// before. When a CA certificate has too many devices the oldest go first; when they
    /// showed too many different sets, only paths are remembered, and then nothing new.
    pub fn remember(&mut self, path: &TrustPath) {
        let device = path.leaf.sha256;
        let on_path = on_path(path);
        let mut shown = on_path.clone();
        let earlier = self.find(&device).map(Arc::clone);
        for other in earlier.iter().flat_map(|earlier| earlier.iter()).chain(&path.chain[1..]) {
            if shown.len() < MAX_INTERMEDIATES && !shown.contains(other) {
                shown.push(other.clone());
            }
        }
        if shown.is_empty() {
            return;
        }
        if self.anchor_of.get(&device) != Some(&path.anchor()) {
            self.forget(&device);
        }
        let below = self.by_anchor.entry(path.anchor()).or_default();
        let Some(shown) = below.shown.intern(&shown).or_else(|| below.paths.intern(&on_path)) else { return };
        if below.by_device.insert(device, shown).is_none() {
            below.devices.push_back(device);
            if below.devices.len() > MAX_DEVICES
                && let Some(oldest) = below.devices.pop_front()
            {
                below.by_device.remove(&oldest);
                self.anchor_of.remove(&oldest);
            }
        }
        self.anchor_of.insert(device, path.anchor());
    }

    fn find(&self, device: &Sha256) -> Option<&Arc<Intermediates>> {
        self.by_anchor.get(self.anchor_of.get(device)?)?.by_device.get(device)
    }

    fn forget(&mut self, device: &Sha256) {
        let Some(anchor) = self.anchor_of.remove(device) else { return };
        if let Some(below) = self.by_anchor.get_mut(&anchor) {
            below.by_device.remove(device);
            below.devices.retain(|other| other != device);
        }
    }

    /// The chain of a device: its certificate, and what came with it in its handshakes.
    #[must_use]
    pub fn chain(&self, leaf: &[u8]) -> Vec<CertificateDer<'static>> {
        let shown = self.find(&Sha256::of(leaf));
        let leaf = CertificateDer::from(leaf.to_vec());
        std::iter::once(leaf).chain(shown.into_iter().flat_map(|shown| shown.iter().cloned())).collect()
    }

    /// Forgets those of the anchors that `keep` says no to.
    pub fn retain(&mut self, keep: impl Fn(&Sha256) -> bool) {
        self.by_anchor.retain(|anchor, _| keep(anchor));
        self.anchor_of.retain(|_, anchor| self.by_anchor.contains_key(anchor));
    }
}

/// The intermediates that the path was verified over.
fn on_path(path: &TrustPath) -> Vec<CertificateDer<'static>> {
    let is_on_path = |der: &&CertificateDer<'static>| {
        let sha256 = Sha256::of(der);
        path.issuers.intermediates.iter().any(|intermediate| intermediate.sha256 == sha256)
    };
    let mut found: Vec<CertificateDer<'static>> = Vec::new();
    for der in path.chain[1..].iter().filter(is_on_path) {
        if !found.contains(der) {
            found.push(der.clone());
        }
    }
    found
}

impl Sets {
    /// The set as devices share it; `None` where there are too many others.
    fn intern(&mut self, intermediates: &Intermediates) -> Option<Arc<Intermediates>> {
        self.0.retain(|set| set.strong_count() > 0);
        let known = self.0.iter().filter_map(Weak::upgrade).find(|known| **known == *intermediates);
        if known.is_some() || self.0.len() == MAX_SHOWN {
            return known;
        }
        let set: Arc<Intermediates> = intermediates.into();
        self.0.push(Arc::downgrade(&set));
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use catrust_device_trust::{Anchor, TrustSet};
    use catrust_domain::CaState;
    use rustls_pki_types::UnixTime;

    use super::*;
    use crate::testing::{Authority, Device};

    /// The path of a device of `inner` below `root`.
    fn path(root: &Authority, inner: &Authority, device: &Device) -> TrustPath {
        let mut set = TrustSet::default();
        assert!(set.add(&Arc::new(Anchor::read(&root.der).unwrap()), CaState::Active));
        let chain = [&device.der, &inner.der].map(|der| CertificateDer::from(der.clone()));
        set.verify(&chain, UnixTime::now()).unwrap()
    }

    #[test]
    fn what_a_device_showed_is_remembered_for_it_alone() {
        let root = Authority::new("R");
        let inner = root.intermediate("I");
        let (device, other) = (inner.device("d"), inner.device("e"));
        let mut chains = ShownChains::default();
        assert_eq!(chains.chain(&device.der).len(), 1);
        chains.remember(&path(&root, &inner, &device));
        assert_eq!(chains.chain(&device.der).len(), 2);
        assert_eq!(chains.chain(&other.der).len(), 1);
        chains.retain(|_| false);
        assert_eq!(chains.chain(&device.der).len(), 1);
    }

    #[test]
    fn one_customer_cannot_push_out_what_devices_of_another_showed() {
        let (one, other) = (Authority::new("R1"), Authority::new("R2"));
        let precious = one.intermediate("I");
        let device = precious.device("d");
        let mut chains = ShownChains::default();
        chains.remember(&path(&one, &precious, &device));
        let mut last = None;
        for number in 0..=2 * MAX_SHOWN {
            // Of the same name, even.
            let inner = other.intermediate("I");
            let device = inner.device(&number.to_string());
            chains.remember(&path(&other, &inner, &device));
            last = Some(device);
        }
        assert_eq!(chains.chain(&device.der).len(), 2);
        assert_eq!(chains.chain(&last.unwrap().der).len(), 1, "there is no bound");
    }

    /// Certificates are no secret, and this is asked before the peer has shown a key.
    #[test]
    fn a_stranger_with_the_certificates_of_devices_pushes_nothing_out() {
        let root = Authority::new("R");
        let inner = root.intermediate("I");
        let (device, late) = (inner.device("d"), inner.device("e"));
        let mut chains = ShownChains::default();
        chains.remember(&path(&root, &inner, &device));
        let mut strange = path(&root, &inner, &inner.device("public"));
        for number in 0..=MAX_SHOWN {
            let junk = CertificateDer::from(Authority::new(&number.to_string()).der);
            // One device's many sets are one at a time; those of many fill the bound.
            for leaf in [strange.leaf.sha256, Sha256::of(&number.to_be_bytes())] {
                strange.leaf.sha256 = leaf;
                strange.chain = [&strange.chain[..2], std::slice::from_ref(&junk)].concat().into();
                chains.remember(&strange);
            }
            let mut again = path(&root, &inner, &device);
            again.chain = [&again.chain[..], &[junk]].concat().into();
            chains.remember(&again);
        }
        assert!(chains.chain(&device.der)[1..].contains(&CertificateDer::from(inner.der.clone())));
        chains.remember(&path(&root, &inner, &late));
        assert_eq!(chains.chain(&late.der).len(), 2, "a device that comes late is kept out");
    }
}
