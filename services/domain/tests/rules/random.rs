//! Random commands from a small world, so that they meet each other often.

use catrust_domain::InactivationScope::{Certificate, Key};
use catrust_domain::{Command, CommandEnvelope, Edition, InactivationScope, SerialNumber};
use proptest::prelude::*;

use crate::fixtures::*;

/// Up to `most` commands, with the registration of `fleet-1` before them.
pub fn commands(most: usize) -> impl Strategy<Value = Vec<CommandEnvelope>> {
    prop::collection::vec(envelope(), 1..most).prop_map(|mut commands| {
        commands.insert(0, asked(register_instance(Edition::Platinum)));
        commands
    })
}

fn envelope() -> impl Strategy<Value = CommandEnvelope> {
    let instance = prop_oneof![8 => Just("fleet-1"), 1 => Just("fleet-2")];
    let caller = prop_oneof![12 => Just(OWNER), 1 => Just("rival")];
    let request_id = prop::option::weighted(0.3, 1_u128..12);
    (instance, caller, command(), request_id).prop_map(|(instance, caller, command, request_id)| {
        let mut envelope = asked_by(caller, command);
        envelope.instance_id = instance_id(instance);
        match request_id {
            Some(number) => with_request_id(number, envelope),
            None => envelope,
        }
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => edition().prop_map(register_instance),
        1 => (owner(), prop::option::of(edition()))
            .prop_map(|(owner, edition)| update_instance(owner, edition)),
        6 => code().prop_map(|code| issue_code(&code)),
        8 => (certificate_of_world(), code(), 2_u32..5)
            .prop_map(|(facts, code, limit)| register_within(&facts, &code, limit)),
        6 => (serial_number(), scope()).prop_map(|(sn, scope)| inactivate(&sn, scope)),
        4 => serial_number().prop_map(|sn| activate(&sn)),
        1 => (serial_number(), 0_u64..6).prop_map(|(sn, revision)| activate_seen_at(&sn, revision)),
        3 => serial_number().prop_map(|sn| delete(&sn)),
    ]
}

/// Two twins, a stranger, a namesake of the first, and another twin of that.
fn certificate_of_world() -> impl Strategy<Value = std::sync::Arc<catrust_domain::CertificateFacts>> {
    prop_oneof![
        Just(certificate("01", 1, 1)),
        Just(certificate("02", 2, 1)),
        Just(certificate("03", 3, 3)),
        Just(certificate("01", 4, 4)),
        Just(certificate("04", 5, 4)),
    ]
}

fn serial_number() -> impl Strategy<Value = SerialNumber> {
    prop::sample::select(vec!["01", "02", "03", "04"]).prop_map(serial)
}

fn code() -> impl Strategy<Value = String> {
    (0..6, any::<bool>()).prop_map(|(number, upper)| format!("{}{number}", if upper { 'C' } else { 'c' }))
}

fn scope() -> impl Strategy<Value = InactivationScope> {
    prop_oneof![Just(Certificate), Just(Key)]
}

fn owner() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![3 => Just(None), 3 => Just(Some(OWNER)), 1 => Just(Some("rival"))]
}

fn edition() -> impl Strategy<Value = Edition> {
    prop_oneof![4 => Just(Edition::Platinum), 1 => Just(Edition::Professional), 1 => Just(Edition::Standard)]
}
