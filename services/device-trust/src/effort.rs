//! The work that one device causes: counted, never done twice, and bounded.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, TrustAnchor,
};

use crate::candidates::MAX_NAMESAKES;
use crate::certificate::Certificate;
use crate::verify::MAX_INTERMEDIATES;

/// Most signature checks for one chain: enough for the longest path, sent in order, below
/// the last of as many namesakes as are tried.
///
/// A check takes some 0.05 ms for P-256, 0.02 ms for RSA-2048, and 0.06 ms for RSA-2048 with
/// the largest exponent, on two cores of a shared virtual machine; the dearest chain that
/// `examples/path_cost.rs` knows takes 0.7, 0.3 and 0.8 to 1.0 ms of a release build (medians),
/// all of the reading and searching included. Other algorithms cost what twelve checks cost.
pub const MAX_SIGNATURE_CHECKS: usize = MAX_NAMESAKES + MAX_INTERMEDIATES;
/// Most times that path building asks about a signature, known answers included: webpki
/// gives up after 100 in each of two searches.
pub const MAX_QUESTIONS: usize = 200;

/// Work that was done for one chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Signatures that were checked.
    pub signature_checks: usize,
    /// Times that path building asked about a signature.
    pub questions: usize,
}

/// Answers webpki's questions about signatures for one chain.
///
/// A question is about an edge: a certificate of the chain, and the key of another one
/// or of an anchor. Each edge is checked once. When the budget is spent every answer is
/// no, which can only make a path not be found.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    chain: &'a [CertificateDer<'a>],
    anchors: &'a [TrustAnchor<'a>],
    /// Of the chain, then of the anchors.
    key_ids: Vec<KeyIds<'a>>,
    state: Mutex<State>,
}

/// How a certificate names its own key and its issuer's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyIds<'a> {
    pub(crate) own: Option<&'a [u8]>,
    pub(crate) issuer: Option<&'a [u8]>,
}

impl<'a> KeyIds<'a> {
    pub(crate) fn of(certificate: &Certificate<'a>) -> Self {
        Self { own: certificate.key_id, issuer: certificate.authority_key_id }
    }
}

#[derive(Debug, Default)]
struct State {
    effort: Effort,
    is_spent: bool,
    /// Whether edges are passed over whose identifiers say something else.
    follows_key_ids: bool,
    answers: Vec<(Edge, bool)>,
}

/// Places of the signed certificate and of the key, anchors counted after the chain.
type Edge = (usize, usize);

impl<'a> Budget<'a> {
    /// For `chain` below `anchors`; webpki MUST be given these very buffers.
    pub(crate) fn new(
        chain: &'a [CertificateDer<'a>],
        anchors: &'a [TrustAnchor<'a>],
        key_ids: Vec<KeyIds<'a>>,
    ) -> Self {
        Self { chain, anchors, key_ids, state: Mutex::default() }
    }

    /// Whether to say no, for nothing, where key identifiers are there and differ: they are
    /// a hint, so that a search without this MUST follow.
    pub(crate) fn follow_key_ids(&self, follow: bool) {
        self.state().follows_key_ids = follow;
    }

    pub(crate) fn effort(&self) -> Effort {
        self.state().effort
    }

    pub(crate) fn is_spent(&self) -> bool {
        self.state().is_spent
    }

    /// The algorithms of the one provider, counted.
    pub(crate) fn algorithms(&self) -> Vec<Counted<'_>> {
        webpki::ALL_VERIFICATION_ALGS
            .iter()
            .map(|algorithm| Counted { algorithm: *algorithm, budget: self })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By where the bytes are, which costs nothing and cannot be forged: both come from
    /// buffers that outlive the budget. `None` for bytes from elsewhere, which are
    /// checked each time.
    fn edge(&self, key: &[u8], message: &[u8]) -> Option<Edge> {
        let holds = |buffer: &[u8], part: &[u8]| buffer.as_ptr_range().contains(&part.as_ptr());
        let signed = self.chain.iter().position(|der| holds(der, message))?;
        let keys = self.chain.iter().map(|der| &**der);
        let keys = keys.chain(self.anchors.iter().map(|anchor| &*anchor.subject_public_key_info));
        let issuer = keys.into_iter().position(|buffer| holds(buffer, key))?;
        Some((signed, issuer))
    }

    fn is_unlikely(&self, (signed, issuer): Edge) -> bool {
        let named = self.key_ids[signed].issuer.zip(self.key_ids[issuer].own);
        named.is_some_and(|(wanted, own)| wanted != own)
    }

    fn answer(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let mut state = self.state();
        let edge = self.edge(key, message);
        state.effort.questions += 1;
        if state.follows_key_ids && edge.is_some_and(|edge| self.is_unlikely(edge)) {
            return Err(InvalidSignature);
        }
        let known = state.answers.iter().find(|(other, _)| Some(*other) == edge).map(|(_, valid)| *valid);
        let valid = match known {
            Some(valid) => valid,
            None if state.effort.signature_checks == MAX_SIGNATURE_CHECKS => {
                state.is_spent = true;
                false
            }
            None => {
                state.effort.signature_checks += 1;
                let valid = algorithm.verify_signature(key, message, signature).is_ok();
                state.answers.extend(edge.map(|edge| (edge, valid)));
                valid
            }
        };
        if valid { Ok(()) } else { Err(InvalidSignature) }
    }
}

/// A signature algorithm whose every use is counted.
pub(crate) struct Counted<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    budget: &'a Budget<'a>,
}

impl fmt::Debug for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.algorithm, f)
    }
}

impl SignatureVerificationAlgorithm for Counted<'_> {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.budget.answer(self.algorithm, key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}
