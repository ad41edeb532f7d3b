//! Commands as the tests give them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use catrust_domain::event::InstanceRegistered;
use catrust_domain::{
    CertificateFacts, Command, CommandContext, CommandEnvelope, Edition, InactivationScope, InstanceId,
    RequestKey, SerialNumber, Sha256, Timestamp,
};
use uuid::Uuid;

use crate::{CommandResults, EventStore};

/// The account that owns every instance of the tests.
pub const ACCOUNT: &str = "acme";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A UUID that no other call of this process gets.
#[must_use]
pub fn unique_id() -> Uuid {
    Uuid::from_u64_pair(0xCA70_0000_0000_4000, NEXT_ID.fetch_add(1, Ordering::Relaxed) | (0b10 << 62))
}

/// The name of an instance.
///
/// # Panics
/// When it is not a name.
#[must_use]
pub fn instance(name: &str) -> InstanceId {
    name.parse().expect("a test names instances correctly")
}

/// Addresses a command, without a request id of the caller's.
#[must_use]
pub fn envelope(id: &InstanceId, command: Command) -> CommandEnvelope {
    CommandEnvelope {
        instance_id: id.clone(),
        command,
        context: CommandContext {
            event_id: unique_id(),
            request_id: unique_id(),
            fingerprint: None,
            actor: "spiffe://example/operator".into(),
            account_id: ACCOUNT.parse().expect("a name"),
            policy_version: "p1".into(),
            source_address: "192.0.2.7".into(),
            traceparent: String::new(),
        },
    }
}

/// Gives a command the caller's request id; the fingerprint is that of `request`.
#[must_use]
pub fn with_request_id(mut envelope: CommandEnvelope, request_id: Uuid, request: &str) -> CommandEnvelope {
    envelope.context.request_id = request_id;
    envelope.context.fingerprint = Some(Sha256::of(request.as_bytes()));
    envelope
}

/// The key under which the reply to `envelope` is stored.
///
/// # Panics
/// When its caller chose no request id.
#[must_use]
pub fn key_of(envelope: &CommandEnvelope) -> RequestKey {
    envelope.request_key().expect("the command has a request id")
}

/// Registers a Platinum instance.
#[must_use]
pub fn register_instance(id: &InstanceId) -> CommandEnvelope {
    envelope(
        id,
        Command::RegisterInstance(InstanceRegistered {
            region_id: "cn-hangzhou".parse().expect("a name"),
            owner_account_id: ACCOUNT.parse().expect("a name"),
            edition: Edition::Platinum,
        }),
    )
}

/// Gives out a register code.
#[must_use]
pub fn issue_code(id: &InstanceId, code: &str) -> CommandEnvelope {
    envelope(id, Command::IssueRegisterCode { register_code: code.into() })
}

/// A certificate that follows from its name; `key` names its key.
#[must_use]
pub fn facts(name: &str, key: &str) -> Arc<CertificateFacts> {
    let sha256 = Sha256::of(name.as_bytes());
    let line = format!("{sha256}\n");
    Arc::new(CertificateFacts {
        sn: SerialNumber::from_bytes(&sha256.as_bytes()[..8]).expect("eight bytes"),
        sha256,
        spki_sha256: Sha256::of(key.as_bytes()),
        subject: format!("CN={name},O=Example"),
        subject_key_id: sha256.to_string()[..40].to_owned(),
        issuer: format!("CN={name},O=Example"),
        not_before: Timestamp::from_micros(1_700_000_000_000_000),
        not_after: Timestamp::from_micros(2_500_000_000_000_000),
        ca_content: format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", line.repeat(15)),
    })
}

/// Registers a CA certificate with a code given out before.
#[must_use]
pub fn register(id: &InstanceId, facts: &Arc<CertificateFacts>, code: &str) -> CommandEnvelope {
    envelope(
        id,
        Command::RegisterCaCertificate {
            facts: Arc::clone(facts),
            ca_name: "factory".into(),
            register_code: code.into(),
            certificate_limit: 10_000,
        },
    )
}

/// Turns trust off.
#[must_use]
pub fn inactivate(id: &InstanceId, sn: &SerialNumber) -> CommandEnvelope {
    envelope(
        id,
        Command::InactivateCaCertificate {
            sn: sn.clone(),
            scope: InactivationScope::Key,
            with_will: false,
            reason: "lost laptop".into(),
        },
    )
}

/// Turns trust on.
#[must_use]
pub fn activate(id: &InstanceId, sn: &SerialNumber) -> CommandEnvelope {
    envelope(
        id,
        Command::ActivateCaCertificate { sn: sn.clone(), expected_revision: None, reason: String::new() },
    )
}

/// Forgets a CA certificate.
#[must_use]
pub fn delete(id: &InstanceId, sn: &SerialNumber) -> CommandEnvelope {
    envelope(id, Command::DeleteCaCertificate { sn: sn.clone(), with_will: false, reason: "left".into() })
}

/// Appends, and wants every command accepted.
///
/// # Panics
/// When the store fails, or a command is refused.
pub async fn append_all(store: &impl EventStore, commands: &[CommandEnvelope]) -> CommandResults {
    let results = store.append(commands).await.expect("the store appends");
    for (result, command) in results.iter().zip(commands) {
        assert!(result.is_ok(), "{result:?} for {:?}", command.command);
    }
    assert_eq!(results.len(), commands.len());
    results
}

/// Registers an instance with one CA certificate for each name; gives their serial
/// numbers.
///
/// # Panics
/// When the store fails, or a command is refused.
pub async fn populate(store: &impl EventStore, id: &InstanceId, names: &[&str]) -> Vec<SerialNumber> {
    append_all(store, &[register_instance(id)]).await;
    let mut sns = Vec::new();
    for name in names {
        sns.push(add(store, id, name, name).await);
    }
    sns
}

/// Registers one CA certificate; gives its serial number.
///
/// # Panics
/// When the store fails, or a command is refused.
pub async fn add(store: &impl EventStore, id: &InstanceId, name: &str, key: &str) -> SerialNumber {
    let code = unique_id().simple().to_string();
    let facts = facts(&format!("{id}/{name}"), key);
    append_all(store, &[issue_code(id, &code), register(id, &facts, &code)]).await;
    facts.sn.clone()
}
