//! Short names for the commands and events of one fleet, `fleet-1` of `acme`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use catrust_domain::event::{
    CaCertificateActivated, CaCertificateDeleted, CaCertificateInactivated, CaCertificateRegistered,
    InstanceRegistered, InstanceUpdated, RegisterCodeIssued,
};
use catrust_domain::{
    AccountId, CertificateFacts, Command, CommandContext, CommandEnvelope, Edition, Event, InactivationScope,
    InstanceId, SerialNumber, Sha256, Timestamp,
};
use uuid::Uuid;

pub const OWNER: &str = "acme";
pub const REASON: &str = "the key leaked";

pub fn fleet() -> InstanceId {
    instance_id("fleet-1")
}

pub fn instance_id(text: &str) -> InstanceId {
    text.parse().expect("an instance id")
}

pub fn account(text: &str) -> AccountId {
    text.parse().expect("an account id")
}

pub fn serial(text: &str) -> SerialNumber {
    text.parse().expect("a serial number")
}

/// A certificate whose identity is `number`, with the key `key`.
pub fn certificate(sn: &str, number: u8, key: u8) -> Arc<CertificateFacts> {
    Arc::new(CertificateFacts {
        sn: serial(sn),
        sha256: Sha256([number; 32]),
        spki_sha256: Sha256([key; 32]),
        subject: format!("CN=CA {number}"),
        subject_key_id: "0a0b".to_owned(),
        issuer: format!("CN=CA {number}"),
        not_before: Timestamp::from_micros(0),
        not_after: Timestamp::from_micros(4_000_000_000_000_000),
        ca_content: format!("PEM of {number}"),
    })
}

/// The certificate that most tests turn on and off.
pub fn root() -> Arc<CertificateFacts> {
    certificate("7A0F", 1, 1)
}

pub fn instance_registered(edition: Edition) -> Event {
    Event::InstanceRegistered(wanted_instance(edition))
}

pub fn instance_updated(owner: &str, edition: Edition) -> Event {
    Event::InstanceUpdated(InstanceUpdated { owner_account_id: account(owner), edition })
}

pub fn code_issued(code: &str) -> Event {
    Event::RegisterCodeIssued(RegisterCodeIssued { register_code: code.to_owned() })
}

pub fn registered(facts: &Arc<CertificateFacts>, code: &str) -> Event {
    Event::CaCertificateRegistered(CaCertificateRegistered {
        certificate: Arc::clone(facts),
        ca_name: "a CA".to_owned(),
        register_code: code.to_owned(),
    })
}

pub fn inactivated(facts: &Arc<CertificateFacts>, scope: InactivationScope) -> Event {
    Event::CaCertificateInactivated(CaCertificateInactivated {
        certificate: Arc::clone(facts),
        scope,
        with_will: true,
        reason: REASON.to_owned(),
    })
}

pub fn activated(facts: &Arc<CertificateFacts>) -> Event {
    Event::CaCertificateActivated(CaCertificateActivated {
        certificate: Arc::clone(facts),
        reason: REASON.to_owned(),
    })
}

pub fn deleted(facts: &Arc<CertificateFacts>) -> Event {
    Event::CaCertificateDeleted(CaCertificateDeleted {
        certificate: Arc::clone(facts),
        with_will: true,
        reason: REASON.to_owned(),
    })
}

pub fn wanted_instance(edition: Edition) -> InstanceRegistered {
    InstanceRegistered {
        region_id: "cn-hangzhou".parse().expect("a region id"),
        owner_account_id: account(OWNER),
        edition,
    }
}

pub fn register_instance(edition: Edition) -> Command {
    Command::RegisterInstance(wanted_instance(edition))
}

pub fn update_instance(owner: Option<&str>, edition: Option<Edition>) -> Command {
    Command::UpdateInstance { owner_account_id: owner.map(account), edition }
}

pub fn issue_code(code: &str) -> Command {
    Command::IssueRegisterCode { register_code: code.to_owned() }
}

pub fn register(facts: &Arc<CertificateFacts>, code: &str) -> Command {
    register_within(facts, code, 100)
}

pub fn register_within(facts: &Arc<CertificateFacts>, code: &str, certificate_limit: u32) -> Command {
    Command::RegisterCaCertificate {
        facts: Arc::clone(facts),
        ca_name: "a CA".to_owned(),
        register_code: code.to_owned(),
        certificate_limit,
    }
}

pub fn inactivate(sn: &SerialNumber, scope: InactivationScope) -> Command {
    Command::InactivateCaCertificate { sn: sn.clone(), scope, with_will: true, reason: REASON.to_owned() }
}

pub fn activate(sn: &SerialNumber) -> Command {
    Command::ActivateCaCertificate { sn: sn.clone(), expected_revision: None, reason: REASON.to_owned() }
}

/// [`activate`] by somebody who has seen the certificate at this revision.
pub fn activate_seen_at(sn: &SerialNumber, expected_revision: u64) -> Command {
    Command::ActivateCaCertificate {
        sn: sn.clone(),
        expected_revision: Some(expected_revision),
        reason: REASON.to_owned(),
    }
}

pub fn delete(sn: &SerialNumber) -> Command {
    Command::DeleteCaCertificate { sn: sn.clone(), with_will: true, reason: REASON.to_owned() }
}

/// The command, asked by `caller`, under a request id that the server made.
pub fn asked_by(caller: &str, command: Command) -> CommandEnvelope {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    CommandEnvelope {
        instance_id: fleet(),
        command,
        context: CommandContext {
            event_id: Uuid::from_u128(number),
            request_id: Uuid::from_u128(number << 64),
            fingerprint: None,
            actor: format!("user-of-{caller}"),
            account_id: account(caller),
            policy_version: "policy-1".to_owned(),
            source_address: "192.0.2.1".to_owned(),
            traceparent: String::new(),
        },
    }
}

/// The command, asked by the owner.
pub fn asked(command: Command) -> CommandEnvelope {
    asked_by(OWNER, command)
}

/// The same under a request id that the caller chose, with an honest fingerprint.
pub fn with_request_id(number: u128, mut envelope: CommandEnvelope) -> CommandEnvelope {
    let request = format!("{:?} {:?}", envelope.instance_id, envelope.command);
    envelope.context.request_id = Uuid::from_u128(number);
    envelope.context.fingerprint = Some(Sha256::of(request.as_bytes()));
    envelope
}
