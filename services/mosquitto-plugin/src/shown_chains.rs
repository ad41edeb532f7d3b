//! What devices showed in their handshakes besides their own certificate.
//!
//! At CONNECT, and in a resumed session, the broker's plugin interface gives the device's
//! own certificate alone. So what came with it is remembered, device by device: what one
//! device showed is never tried for another one, which could otherwise be kept out by
//! certificates that somebody else had put in its way. It is no trust: a remembered chain
//! is verified like any other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use catrust_device_trust::TrustPath;
use catrust_domain::Sha256;
use rustls_pki_types::CertificateDer;

/// Most different sets of intermediates, and most devices, remembered for one CA
/// certificate: what a customer makes its devices show must not fill the broker's memory
/// (2 MiB here at most), nor push out those of another customer.
const MAX_SHOWN: usize = 128;
const MAX_DEVICES: usize = 16 * 1024;

type Intermediates = [CertificateDer<'static>];

#[derive(Debug, Default)]
struct BelowAnchor {
    /// The oldest first. Devices share them.
    shown: VecDeque<Arc<Intermediates>>,
    by_device: HashMap<Sha256, Weak<Intermediates>>,
    /// The oldest first.
    devices: VecDeque<Sha256>,
}

/// The remembered intermediates.
#[derive(Debug, Default)]
pub struct ShownChains {
    by_anchor: HashMap<Sha256, BelowAnchor>,
    anchor_of: HashMap<Sha256, Sha256>,
}

impl ShownChains {
    /// Remembers what came with a device that was trusted; the oldest of its CA
    /// certificate go first when there are too many.
    pub fn remember(&mut self, path: &TrustPath) {
        let device = path.leaf.sha256;
        let [_, intermediates @ ..] = &*path.chain else { return };
        if intermediates.is_empty() {
            self.forget(&device);
            return;
        }
        if self.anchor_of.get(&device) != Some(&path.anchor()) {
            self.forget(&device);
        }
        let below = self.by_anchor.entry(path.anchor()).or_default();
        let shown = below.intern(intermediates);
        if below.by_device.insert(device, Arc::downgrade(&shown)).is_none() {
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

    fn forget(&mut self, device: &Sha256) {
        let Some(anchor) = self.anchor_of.remove(device) else { return };
        if let Some(below) = self.by_anchor.get_mut(&anchor) {
            below.by_device.remove(device);
            below.devices.retain(|other| other != device);
        }
    }

    /// The chain of a device: its certificate, and what came with it in its last handshake.
    #[must_use]
    pub fn chain(&self, leaf: &[u8]) -> Vec<CertificateDer<'static>> {
        let device = Sha256::of(leaf);
        let below = self.anchor_of.get(&device).and_then(|anchor| self.by_anchor.get(anchor));
        let shown = below.and_then(|below| below.by_device.get(&device)?.upgrade());
        let leaf = CertificateDer::from(leaf.to_vec());
        std::iter::once(leaf).chain(shown.iter().flat_map(|shown| shown.iter().cloned())).collect()
    }

    /// Forgets those of the anchors that `keep` says no to.
    pub fn retain(&mut self, keep: impl Fn(&Sha256) -> bool) {
        self.by_anchor.retain(|anchor, _| keep(anchor));
        self.anchor_of.retain(|_, anchor| self.by_anchor.contains_key(anchor));
    }
}

impl BelowAnchor {
    fn intern(&mut self, intermediates: &Intermediates) -> Arc<Intermediates> {
        if let Some(known) = self.shown.iter().find(|known| ***known == *intermediates) {
            return Arc::clone(known);
        }
        if self.shown.len() == MAX_SHOWN {
            self.shown.pop_front();
        }
        let shown: Arc<Intermediates> = intermediates.into();
        self.shown.push_back(Arc::clone(&shown));
        shown
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
        let mut first = None;
        for number in 0..=MAX_SHOWN {
            // Of the same name, even.
            let inner = other.intermediate("I");
            let device = inner.device(&number.to_string());
            chains.remember(&path(&other, &inner, &device));
            first.get_or_insert(device);
        }
        assert_eq!(chains.chain(&device.der).len(), 2);
        assert_eq!(chains.chain(&first.unwrap().der).len(), 1, "the oldest is kept for ever");
    }
}
