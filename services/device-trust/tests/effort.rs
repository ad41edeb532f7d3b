//! What hostile chains cost: counted work, in any shape that names and keys permit.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::HashMap;
use std::sync::Arc;

use catrust_decision_table::{ACTIVE, Authority, Device, INACTIVE, SUPERSEDED};
use catrust_device_trust::{
    Anchor, Effort, MAX_NAMESAKES, MAX_QUESTIONS, MAX_SIGNATURE_CHECKS, Refusal, TrustPath, TrustSet,
};
use catrust_domain::CaState;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, UnixTime};

fn set<'a>(states: impl IntoIterator<Item = (&'a CertificateDer<'static>, CaState)>) -> TrustSet {
    let mut set = TrustSet::default();
    for (der, state) in states {
        assert!(set.add(&Arc::new(Anchor::read(der).unwrap()), state));
    }
    set
}

fn verify(set: &TrustSet, device: &Device) -> (Result<TrustPath, Refusal>, Effort) {
    set.verify_counted(&device.chain, UnixTime::now())
}

/// Eight certificates of one subject and issuer, with different keys, cost webpki alone
/// some 29,000 partial paths.
#[test]
fn the_attack_with_eight_certificates_of_one_subject_costs_nothing() {
    let root = Authority::new("X");
    let crowd: Vec<Authority> = (0..8).map(|_| root.namesake()).collect();
    let (ours, other) = (set([(&root.der, ACTIVE)]), set([(&Authority::new("Y").der, ACTIVE)]));
    for (set, shown, refusal, most) in [
        (&other, 8, Refusal::ChainTooLong, 0),
        (&ours, 8, Refusal::ChainTooLong, 0),
        (&other, 4, Refusal::UnknownIssuer, 0),
        // The device and each of the four, with the key of the root.
        (&ours, 4, Refusal::UnknownIssuer, 5),
    ] {
        let device = crowd[0].namesake().device("d").showing(&crowd[..shown]);
        let (result, effort) = verify(set, &device);
        assert_eq!(result.unwrap_err(), refusal);
        assert!(effort.signature_checks <= most, "{effort:?}");
    }
}

#[test]
fn a_device_of_an_inactive_expired_or_unknown_ca_costs_no_signature() {
    let (a, expired) = (Authority::new("A"), Authority::valid("E", catrust_decision_table::PAST));
    let inner = a.intermediate("I");
    for (set, device) in [
        (set([(&a.der, INACTIVE)]), a.device("d")),
        (set([(&a.der, SUPERSEDED)]), a.device("d")),
        (set([(&a.der, INACTIVE)]), inner.device("d").showing([&inner])),
        (set([(&a.der, ACTIVE), (&inner.der, INACTIVE)]), inner.device("d").showing([&inner])),
        (set([(&expired.der, ACTIVE)]), expired.device("d")),
        (set([]), a.device("d")),
    ] {
        let (result, effort) = verify(&set, &device);
        assert!(result.is_err());
        assert_eq!(effort, Effort::default());
    }
}

#[test]
fn an_honest_chain_costs_a_check_for_each_certificate_whatever_namesakes_there_are() {
    let root = Authority::new("Root");
    let inner = root.intermediate("Inner");
    let others: Vec<Authority> = (0..20).flat_map(|_| [root.namesake(), inner.namesake()]).collect();
    let set = set(others.iter().chain([&root]).map(|ca| (&ca.der, ACTIVE)));
    let (result, effort) = verify(&set, &inner.device("d").showing([&inner]));
    assert_eq!(result.unwrap().anchor(), root.sha256());
    assert_eq!(effort.signature_checks, 2);
}

#[test]
fn without_key_identifiers_a_ca_is_found_among_as_many_namesakes_as_stated() {
    let a = Authority::new("A");
    let others: Vec<Authority> = (1..MAX_NAMESAKES).map(|_| a.namesake()).collect();
    let set = set(others.iter().chain([&a]).map(|ca| (&ca.der, ACTIVE)));
    let bare = a.device_with("d", |params| params.use_authority_key_identifier_extension = false);
    let (result, effort) = verify(&set, &bare);
    assert_eq!(result.unwrap().anchor(), a.sha256());
    assert!(effort.signature_checks <= MAX_NAMESAKES);
}

#[test]
fn a_name_compared_with_too_many_constraints_is_refused_unseen() {
    let root = Authority::new("Root");
    let name = |number: usize| format!("n{number}.example");
    let inner = root.intermediate_with("Inner", |params| {
        let permitted_subtrees =
            (0..300).map(|number| rcgen::GeneralSubtree::DnsName(name(number))).collect();
        params.name_constraints =
            Some(rcgen::NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });
    let device = inner.device_with("d", |params| {
        params.subject_alt_names =
            (0..300).map(|number| rcgen::SanType::DnsName(name(number).try_into().unwrap())).collect();
    });
    let (result, effort) = verify(&set([(&root.der, ACTIVE)]), &device.showing([&inner]));
    assert_eq!((result.unwrap_err(), effort), (Refusal::TooCostly, Effort::default()));
}

/// What registered certificates hold is no device's doing, and must not decide about the
/// others: one that is left out of the set is one that cannot be inactivated.
#[test]
fn a_registered_certificate_may_hold_more_than_a_device_may_show() {
    let extensions = |params: &mut CertificateParams| {
        let number = |n: u64| rcgen::CustomExtension::from_oid_content(&[1, 2, 3, n], vec![5, 0]);
        params.custom_extensions.extend((0..40).map(number));
    };
    let purposes = |params: &mut CertificateParams| {
        let other = |n: u64| rcgen::ExtendedKeyUsagePurpose::Other(vec![1, 2, 3, n]);
        params.extended_key_usages = (0..17).map(other).collect();
        params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    };
    for ca in [Authority::with("Odd", extensions), Authority::with("Odd", purposes)] {
        let device = ca.device("d");
        assert_eq!(verify(&set([(&ca.der, ACTIVE)]), &device).0.unwrap().anchor(), ca.sha256());
        assert_eq!(verify(&set([(&ca.der, INACTIVE)]), &device).0.unwrap_err(), Refusal::Inactive);
    }
    let a = Authority::new("A");
    let (odd_leaf, odd) = (a.device_with("d", extensions), a.intermediate_with("I", extensions));
    for (device, refusal) in
        [(odd_leaf, Refusal::Malformed), (odd.device("d").showing([&odd]), Refusal::UnknownIssuer)]
    {
        assert_eq!(verify(&set([(&a.der, ACTIVE)]), &device).0.unwrap_err(), refusal);
    }
}

#[test]
fn a_namesake_with_many_name_constraints_keeps_no_device_of_another_ca_out() {
    let a = Authority::new("Root");
    let namesake = Authority::with("Root", |params| {
        let name = |n: usize| rcgen::GeneralSubtree::DnsName(n.to_string());
        let excluded_subtrees = (0..600).map(name).collect();
        params.name_constraints =
            Some(rcgen::NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees });
    });
    let name = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("d.example".try_into().unwrap())];
    };
    let set = set([(&a.der, ACTIVE), (&namesake.der, ACTIVE)]);
    assert_eq!(verify(&set, &a.device_with("d", name)).0.unwrap().anchor(), a.sha256());
    assert_eq!(verify(&set, &namesake.device_with("d", name)).0.unwrap_err(), Refusal::TooCostly);
}

/// Key identifiers are free text: who registers more namesakes than are tried, with a
/// copied identifier or where a device names none, keeps devices out. They are told so.
#[test]
fn more_namesakes_than_are_tried_are_told_and_not_taken_for_an_unknown_issuer() {
    let a = Authority::new("A");
    let bare = a.device_with("d", |params| params.use_authority_key_identifier_extension = false);
    let later = |number: usize| -> Vec<Authority> {
        let later = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        (0..number).map(|_| Authority::with("A", later)).collect()
    };
    for (others, of_bare) in
        [(later(MAX_NAMESAKES - 1), Ok(a.sha256())), (later(MAX_NAMESAKES), Err(Refusal::TooCostly))]
    {
        let set = set(others.iter().chain([&a]).map(|ca| (&ca.der, ACTIVE)));
        assert_eq!(verify(&set, &bare).0.map(|path| path.anchor()), of_bare);
        assert_eq!(verify(&set, &a.device("d")).0.unwrap().anchor(), a.sha256(), "its key is named");
    }
}

/// Four keys of one subject, each certified with the one before, as rollovers leave them.
#[test]
fn the_order_in_which_an_honest_chain_is_sent_does_not_matter() {
    let root = Authority::new("X");
    let mut row = vec![root.namesake().cross_signed_by(&root)];
    for _ in 1..4 {
        let next = root.namesake().cross_signed_by(row.last().unwrap());
        row.push(next);
    }
    let issuer = row.last().unwrap().clone();
    for _ in 0..2 {
        row.reverse();
        let (result, effort) = verify(&set([(&root.der, ACTIVE)]), &issuer.device("d").showing(&row));
        assert_eq!(result.unwrap().anchor(), root.sha256());
        assert_eq!(effort.signature_checks, 5);
    }
}

#[test]
fn a_certificate_that_is_sent_twice_counts_once() {
    let root = Authority::new("R");
    let mut row = vec![root.clone()];
    for number in 0..4 {
        let next = row[number].intermediate(&format!("I{number}"));
        row.push(next);
    }
    let mut device = row[4].device("d").showing(row[1..].iter().rev());
    device.chain.insert(1, device.chain[0].clone());
    assert!(verify(&set([(&root.der, ACTIVE)]), &device).0.is_ok());
}

const NAMES: [&str; 3] = ["X", "Y", "Z"];
const KEYS: usize = 7;

/// A certificate by what it says and who really signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    subject: usize,
    key: usize,
    issuer: usize,
    signer: usize,
}

/// A device, what it shows, and what is trusted.
#[derive(Clone, Debug)]
struct Case {
    leaf: Plan,
    names_key: bool,
    shown: Vec<Plan>,
    anchors: Vec<Plan>,
    inactive: Option<Plan>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn plan(&mut self, names: usize) -> Plan {
        let (subject, issuer) = (self.below(names), self.below(names));
        Plan { subject, key: self.below(KEYS), issuer, signer: self.below(KEYS) }
    }

    fn anchor(&mut self, names: usize) -> Plan {
        let plan = self.plan(names);
        Plan { issuer: plan.subject, signer: plan.key, ..plan }
    }

    fn case(&mut self) -> Case {
        let names = 1 + self.below(NAMES.len());
        let shown = (0..self.below(5)).map(|_| self.plan(names)).collect();
        let anchors = (0..1 + self.below(7)).map(|_| self.anchor(names)).collect();
        let inactive = (self.below(3) == 0).then(|| self.anchor(names));
        // A key that no CA has.
        let leaf = Plan { key: KEYS, ..self.plan(names) };
        Case { leaf, names_key: self.below(2) == 0, shown, anchors, inactive }
    }

    /// The same with one thing changed.
    fn mutate(&mut self, case: &Case) -> Case {
        let (mut case, other) = (case.clone(), self.case());
        match self.below(4) {
            0 => case.leaf = other.leaf,
            1 if !case.shown.is_empty() => {
                let place = self.below(case.shown.len());
                case.shown[place] = self.plan(NAMES.len());
            }
            2 if case.shown.len() < 4 => case.shown.push(self.plan(NAMES.len())),
            3 => case.anchors.push(self.anchor(NAMES.len())),
            _ => case.names_key = !case.names_key,
        }
        case
    }
}

struct Mint {
    keys: Vec<KeyPair>,
    made: HashMap<(Plan, bool), CertificateDer<'static>>,
}

impl Mint {
    fn certificate(&mut self, plan: Plan, names_key: bool) -> CertificateDer<'static> {
        let params = |name: &str, is_ca: bool| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            if is_ca {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            params.use_authority_key_identifier_extension = names_key;
            params
        };
        let keys = &self.keys;
        let make = || {
            let issuer = Issuer::new(params(NAMES[plan.issuer], true), &keys[plan.signer]);
            let own = params(NAMES[plan.subject], plan.key != KEYS);
            own.signed_by(&keys[plan.key], &issuer).unwrap().into()
        };
        self.made.entry((plan, names_key)).or_insert_with(make).clone()
    }

    fn run(&mut self, case: &Case) -> (Result<TrustPath, Refusal>, Effort) {
        let anchors: Vec<_> = case.anchors.iter().map(|plan| self.certificate(*plan, false)).collect();
        let inactive = case.inactive.map(|plan| self.certificate(plan, false));
        let mut states: HashMap<_, _> = anchors.iter().map(|der| (der, ACTIVE)).collect();
        states.extend(inactive.iter().map(|der| (der, INACTIVE)));
        let leaf = self.certificate(case.leaf, case.names_key);
        let shown: Vec<_> = case.shown.iter().map(|plan| self.certificate(*plan, case.names_key)).collect();
        let chain = [vec![leaf], shown].concat();
        set(states).verify_counted(&chain, UnixTime::now())
    }
}

impl Case {
    fn denies(&self, key: usize) -> bool {
        self.inactive.is_some_and(|plan| plan.key == key)
    }

    /// Number of signatures that names leave to be checked, known key identifiers or not.
    fn edges(&self) -> usize {
        let issuers = || self.shown.iter().chain(&self.anchors).collect::<std::collections::HashSet<_>>();
        let signed = std::iter::once(&self.leaf).chain(&self.shown);
        signed.map(|plan| issuers().iter().filter(|issuer| issuer.subject == plan.issuer).count()).sum()
    }

    /// Whether there is a path, by the plans alone and without any bound.
    fn has_path(&self, head: Plan, used: &mut Vec<Plan>) -> bool {
        let signed = |issuer: &Plan| issuer.subject == head.issuer && issuer.key == head.signer;
        if self.anchors.iter().any(|anchor| signed(anchor) && !self.denies(anchor.key)) {
            return true;
        }
        self.shown.iter().any(|next| {
            let met = used.iter().any(|plan| plan.subject == next.subject && plan.key == next.key);
            if met || !signed(next) || self.denies(next.key) {
                return false;
            }
            used.push(*next);
            let found = self.has_path(*next, used);
            used.pop();
            found
        })
    }
}

/// Searches for the dearest chains by changing the dearest so far, and holds every one of
/// them against a search without bounds.
#[test]
fn no_chain_costs_more_than_the_budget_and_every_verdict_is_right() {
    let keys = (0..=KEYS).map(|_| KeyPair::generate().unwrap()).collect();
    let mut mint = Mint { keys, made: HashMap::new() };
    let (mut dearest, mut admitted, mut spent) = (Effort::default(), 0, 0);
    for seed in 1..=60_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut case = random.case();
        let mut cost = (0, 0);
        for _ in 0..60 {
            let next = random.mutate(&case);
            let (result, effort) = mint.run(&next);
            assert!(effort.signature_checks <= MAX_SIGNATURE_CHECKS, "{effort:?} {next:?}");
            assert!(effort.questions <= MAX_QUESTIONS, "{effort:?} {next:?}");
            let exists = next.has_path(next.leaf, &mut Vec::new());
            match result {
                Ok(_) => {
                    assert!(exists, "admitted without a path: {next:?}");
                    admitted += 1;
                }
                Err(Refusal::TooCostly) => {
                    let edges = next.edges();
                    assert!(edges > MAX_SIGNATURE_CHECKS, "too costly with {edges} signatures: {next:?}");
                    spent += 1;
                }
                Err(refusal) => assert!(!exists, "{refusal} although there is a path: {next:?}"),
            }
            if (effort.signature_checks, effort.questions) >= cost {
                cost = (effort.signature_checks, effort.questions);
                case = next;
            }
            dearest.signature_checks = dearest.signature_checks.max(effort.signature_checks);
            dearest.questions = dearest.questions.max(effort.questions);
        }
    }
    println!("dearest: {dearest:?}; admitted {admitted}, too costly {spent}");
    // The search has found what it looks for, and not only that.
    assert_eq!(dearest.signature_checks, MAX_SIGNATURE_CHECKS);
    assert!(admitted > 100 && spent > 0, "admitted {admitted}, too costly {spent}");
}
