//! The rows.

use catrust_domain::CaState;
use rcgen::{CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, NameConstraints, SanType};

use crate::authority::{Authority, Device, FUTURE, PAST};
use crate::{ACTIVE, Alert, INACTIVE, Row, SUPERSEDED, Verdict};

const STATES: [(CaState, Option<Alert>); 3] =
    [(ACTIVE, None), (INACTIVE, Some(Alert::Revoked)), (SUPERSEDED, Some(Alert::Revoked))];
const REVOKED: Verdict = Verdict::Refused(Alert::Revoked);
const UNKNOWN: Verdict = Verdict::Refused(Alert::UnknownCa);
const EXPIRED: Verdict = Verdict::Refused(Alert::Expired);
const BAD: Verdict = Verdict::Refused(Alert::Bad);

fn row(name: &str, trust: &[(&Authority, CaState)], device: Device, verdict: Verdict) -> Row {
    let trust = trust.iter().map(|(authority, state)| (authority.der.clone(), *state)).collect();
    Row { name: name.to_owned(), trust, device, verdict }
}

fn admitted(anchor: &Authority, user_name: &str) -> Verdict {
    Verdict::Admitted { anchor: anchor.sha256(), user_name: user_name.to_owned() }
}

/// All rows, with certificates of the moment.
#[must_use]
pub fn rows() -> Vec<Row> {
    [states(), twins(), times(), names(), leaves(), shapes()].concat()
}

/// Path × state × scope.
fn states() -> Vec<Row> {
    let (a, b, root) = (Authority::new("A"), Authority::new("B"), Authority::new("Root"));
    let inner = root.intermediate("Inner");
    let lower = inner.intermediate("Lower");
    let mut rows = Vec::new();
    for (state, alert) in STATES {
        let verdict = |anchor| alert.map_or_else(|| admitted(anchor, "d"), Verdict::Refused);
        let mut add = |path: &str, trust: &[_], device, verdict| {
            rows.push(row(&format!("{path}, {state:?}"), trust, device, verdict));
        };
        add("direct", &[(&a, state), (&b, ACTIVE)], a.device("d"), verdict(&a));
        let below = || lower.device("d").showing([&lower, &inner]);
        add("two intermediates below a root", &[(&root, state)], below(), verdict(&root));
        let trust = [(&root, ACTIVE), (&inner, state)];
        // Registered and active, the intermediate itself vouches.
        add("an intermediate that is registered", &trust, below(), verdict(&inner));
        let thief = b.device_with_key_of(&a, "d");
        let verdict = if state == INACTIVE { REVOKED } else { admitted(&b, "d") };
        add("the key of a CA as a device's", &[(&a, state), (&b, ACTIVE)], thief, verdict);
    }
    let device = || inner.device("d");
    rows.extend([
        row("no CA at all", &[], a.device("d"), UNKNOWN),
        row("an unregistered CA", &[(&b, ACTIVE)], a.device("d"), UNKNOWN),
        row("an intermediate that is not shown", &[(&root, ACTIVE)], device(), UNKNOWN),
        row("a partial chain", &[(&inner, ACTIVE), (&root, INACTIVE)], device(), admitted(&inner, "d")),
        row(
            "a root shown as well",
            &[(&root, ACTIVE)],
            device().showing([&inner, &root]),
            admitted(&root, "d"),
        ),
        row(
            "in another order",
            &[(&root, ACTIVE)],
            lower.device("d").showing([&inner, &lower]),
            admitted(&root, "d"),
        ),
    ]);
    rows
}

/// Renewed and cross-signed certificates, and other keys of the same subject.
fn twins() -> Vec<Row> {
    let (a, b, c) = (Authority::new("A"), Authority::new("B"), Authority::new("C"));
    let (new, other) = (a.renewed(), a.namesake());
    let (over_b, over_c) = (a.cross_signed_by(&b), a.cross_signed_by(&c));
    let crossed = || a.device("d").showing([&over_b, &over_c]);
    let bare = || a.device_with("d", |params| params.use_authority_key_identifier_extension = false);
    let namesakes: Vec<Authority> = (0..7).map(|_| a.namesake()).collect();
    let crowd: Vec<_> = namesakes.iter().chain([&a]).map(|ca| (ca, ACTIVE)).collect();
    let many: Vec<Authority> = (0..30).map(|_| a.namesake()).collect();
    let many: Vec<_> = many.iter().chain([&a]).map(|ca| (ca, ACTIVE)).collect();
    vec![
        row("renewed, the key inactive", &[(&a, INACTIVE), (&new, ACTIVE)], a.device("d"), REVOKED),
        row(
            "renewed, the old one superseded",
            &[(&a, SUPERSEDED), (&new, ACTIVE)],
            a.device("d"),
            admitted(&new, "d"),
        ),
        row("cross-signed", &[(&b, ACTIVE)], crossed(), admitted(&b, "d")),
        row(
            "cross-signed, the key inactive",
            &[(&a, INACTIVE), (&b, ACTIVE), (&c, ACTIVE)],
            crossed(),
            REVOKED,
        ),
        row(
            "cross-signed by two, one inactive",
            &[(&b, INACTIVE), (&c, ACTIVE)],
            crossed(),
            admitted(&c, "d"),
        ),
        row(
            "cross-signed by two, one certificate superseded",
            &[(&over_b, SUPERSEDED), (&b, ACTIVE), (&c, ACTIVE)],
            crossed(),
            admitted(&c, "d"),
        ),
        row("a namesake beside it", &[(&a, ACTIVE), (&other, ACTIVE)], a.device("d"), admitted(&a, "d")),
        row("a namesake, inactive", &[(&a, ACTIVE), (&other, INACTIVE)], bare(), admitted(&a, "d")),
        row("inactive, a namesake active", &[(&a, INACTIVE), (&other, ACTIVE)], a.device("d"), REVOKED),
        row("an impostor of the name", &[(&a, ACTIVE)], other.device("d"), UNKNOWN),
        row("eight namesakes, no key named", &crowd, bare(), admitted(&a, "d")),
        row("thirty-one namesakes, the key named", &many, a.device("d"), admitted(&a, "d")),
    ]
}

/// Leaf, intermediate and anchor × time.
fn times() -> Vec<Row> {
    let (a, root) = (Authority::new("A"), Authority::new("Root"));
    let mut rows = Vec::new();
    for (word, span) in [("expired", PAST), ("not yet valid", FUTURE)] {
        let (ca, inner) = (Authority::valid("T", span), root.intermediate_valid("Inner", span));
        let good = root.intermediate("Inner");
        rows.extend([
            row(&format!("a device {word}"), &[(&a, ACTIVE)], a.device_valid("d", span), EXPIRED),
            row(&format!("a CA {word}"), &[(&ca, ACTIVE)], ca.device("d"), EXPIRED),
            row(
                &format!("an intermediate {word}"),
                &[(&root, ACTIVE)],
                inner.device("d").showing([&inner]),
                EXPIRED,
            ),
            row(
                &format!("an intermediate {word}, and a good one"),
                &[(&root, ACTIVE)],
                good.device("d").showing([&inner, &good]),
                admitted(&root, "d"),
            ),
            row(&format!("a CA {word} and inactive"), &[(&ca, INACTIVE)], ca.device("d"), REVOKED),
        ]);
    }
    rows
}

/// One user name for each certificate.
fn names() -> Vec<Row> {
    let a = Authority::new("A");
    let (long, longer) = ("n".repeat(256), "n".repeat(257));
    let digest = format!("sha256-{}", "0".repeat(64));
    let mut devices = vec![
        ("a name with blanks and umlauts", a.device("Pumpe 7 für Öl"), Some("Pumpe 7 für Öl")),
        ("a name of 256 bytes", a.device(&long), Some(long.as_str())),
        ("a name of 257 bytes", a.device(&longer), None),
        ("no name", a.device(""), None),
        ("a name with a line end", a.device("a\nb"), None),
        ("the digest of another one as the name", a.device(&digest), None),
    ];
    let twice = a.device_with("one", |params| {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "two");
    });
    devices.push(("two names", twice, None));
    let none = a.device_with("x", |params| params.distinguished_name = rcgen::DistinguishedName::new());
    devices.push(("no subject", none, None));
    devices
        .into_iter()
        .map(|(what, device, name)| {
            let name = name.map_or_else(|| device.digest_name(), str::to_owned);
            row(what, &[(&a, ACTIVE)], device, admitted(&a, &name))
        })
        .collect()
}

/// Kinds of leaves.
fn leaves() -> Vec<Row> {
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let trust = [(&a, ACTIVE)];
    let server =
        a.device_with("d", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let any = a.device_with("d", |params| params.extended_key_usages.clear());
    let critical = a.device_with("d", |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let mut trailing = a.device("d");
    trailing.chain[0] = [trailing.chain[0].to_vec(), vec![0]].concat().into();
    let mut old = a.device("d");
    old.chain[0] = version_1(&old.chain[0]).into();
    let denied = b.device("d");
    let leaf = (denied.chain[0].clone(), SUPERSEDED);
    let mut denied = row("a device's own certificate denied", &[(&b, ACTIVE)], denied, REVOKED);
    denied.trust.push(leaf);
    vec![
        row("no purpose given", &trust, any, admitted(&a, "d")),
        row("a server's certificate", &trust, server, Verdict::Refused(Alert::Unsupported)),
        row("a CA's own certificate", &trust, a.as_device(), Verdict::Refused(Alert::Unsupported)),
        row("an unknown critical extension", &trust, critical, BAD),
        row("bytes behind the certificate", &trust, trailing, Verdict::Refused(Alert::Any)),
        row("X.509 version 1", &trust, old, BAD),
        denied,
    ]
}

/// Shapes of chains.
fn shapes() -> Vec<Row> {
    let root = Authority::new("Root");
    let mut chain = vec![root.clone()];
    for number in 0..5 {
        let next = chain[number].intermediate(&format!("I{number}"));
        chain.push(next);
    }
    let below = |depth: usize| chain[depth].device("d").showing(chain[1..=depth].iter().rev());
    let strangers: Vec<Authority> = (0..3).map(|number| Authority::new(&format!("S{number}"))).collect();
    // The root's key was changed twice, each certificate signed with the key before.
    let (second, third) = (root.namesake().cross_signed_by(&root), root.namesake());
    let third = third.cross_signed_by(&second);
    let no_ca = root.intermediate_with("Inner", |params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    let narrow = root.intermediate_with("Narrow", |params| {
        let permitted_subtrees = vec![GeneralSubtree::DnsName("example.com".to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    });
    let named = |name: &str| {
        let name = SanType::DnsName(name.try_into().unwrap_or_else(|_| panic!("{name} is no name")));
        narrow.device_with("d", |params| params.subject_alt_names = vec![name]).showing([&narrow])
    };
    let flat = root.intermediate_with("Flat", |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    });
    let below_flat = flat.intermediate("Below");
    let attack: Vec<Authority> = (0..8).map(|_| root.namesake()).collect();
    vec![
        row("four intermediates", &[(&root, ACTIVE)], below(4), admitted(&root, "d")),
        row("five intermediates", &[(&root, ACTIVE)], below(5), BAD),
        row(
            "strangers in the chain",
            &[(&root, ACTIVE)],
            chain[1].device("d").showing(strangers.iter().chain([&chain[1]])),
            admitted(&root, "d"),
        ),
        row(
            "a root with two later keys",
            &[(&root, ACTIVE)],
            third.device("d").showing([&third, &second]),
            admitted(&root, "d"),
        ),
        row(
            "the same in another order",
            &[(&root, ACTIVE)],
            third.device("d").showing([&second, &third]),
            admitted(&root, "d"),
        ),
        row("an issuer that is no CA", &[(&root, ACTIVE)], no_ca.device("d").showing([&no_ca]), UNKNOWN),
        row(
            "a name inside the constraints",
            &[(&root, ACTIVE)],
            named("a.example.com"),
            admitted(&root, "d"),
        ),
        row("a name outside of them", &[(&root, ACTIVE)], named("example.org"), UNKNOWN),
        row(
            "a path longer than its CA permits",
            &[(&root, ACTIVE)],
            below_flat.device("d").showing([&below_flat, &flat]),
            UNKNOWN,
        ),
        row("eight of one subject", &[(&root, ACTIVE)], attack[0].device("d").showing(&attack), BAD),
        row("four of one subject", &[(&root, ACTIVE)], attack[0].device("d").showing(&attack[..4]), UNKNOWN),
    ]
}

/// `der` as version 1 has it: no version, no extensions. The signature is of no account,
/// as the version is looked at before.
fn version_1(der: &[u8]) -> Vec<u8> {
    let (certificate, _) = element(der);
    let (tbs, rest) = element(certificate);
    let (mut fields, mut left) = (Vec::new(), tbs);
    while !left.is_empty() {
        let (_, after) = element(left);
        let field = &left[..left.len() - after.len()];
        if field[0] != 0xa0 && field[0] != 0xa3 {
            fields.extend_from_slice(field);
        }
        left = after;
    }
    sequence(&[sequence(&fields), rest.to_vec()].concat())
}

/// Content of the first element, and what comes after it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = match der[1] {
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
        short => (2, usize::from(short)),
    };
    der[header..].split_at(length)
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0x30, 0x82], length.as_slice(), content].concat()
}
