//! The stored rows. A new column is a line here, a field of the type, and a migration of
//! each engine; `tests` holds the declarations against the migrated schemas.

use std::sync::Arc;

use catrust_domain::set_hash::SetHash;
use catrust_domain::{
    AccountId, AppliedRevision, BrokerId, BrokerState, CaCertificate, CaState, CertificateFacts, Edition,
    Enforcement, InactivationScope, Instance, InstanceId, LogEpoch, LogHead, OutcomeKind, RecordedEvent,
    RefusedRevision, RegionId, SerialNumber, Sha256, Timestamp,
};
use uuid::Uuid;

use crate::refusals::RefusedCall;
use crate::row::stored_row;

stored_row! {
    RecordedEvent as e in "events";
    key {
        position: u64 = e.position;
    }
    fixed {
        event_id: Uuid = e.event_id;
        stream_id: String = &e.stream_id;
        stream_version: u64 = e.stream_version;
        instance_id: InstanceId = &e.instance_id;
        revision: Option<u64> = e.revision;
        bundle_digest: Option<Sha256> = e.bundle_digest.as_ref();
        sn: Option<SerialNumber> = e.sn.as_ref();
        event_type: String = &e.event_type;
        schema_version: u16 = e.schema_version;
        payload: String as Json = &e.payload;
        actor: String = &e.actor;
        account_id: AccountId = &e.account_id;
        policy_version: String = &e.policy_version;
        source_address: String = &e.source_address;
        request_id: Uuid = e.request_id;
        traceparent: String = &e.traceparent;
        occurred_at: Timestamp = e.occurred_at;
        hash: Sha256 = &e.hash;
    }
    changing {}
    RecordedEvent {
        position, event_id, stream_id, stream_version, instance_id, revision, bundle_digest, sn, event_type,
        schema_version, payload, actor, account_id, policy_version, source_address, request_id, traceparent,
        occurred_at, hash,
        // Of a row that is no trust change only those know it who read it with the epochs.
        epoch: revision.map(LogEpoch::of_revision).unwrap_or_default(),
    }
}

stored_row! {
    LogHead as head in "events";
    key {
        position: u64 = head.position;
    }
    fixed {
        hash: Sha256 = &head.hash;
        occurred_at: Timestamp = head.occurred_at;
    }
    changing {}
    LogHead { position, hash, occurred_at }
}

/// How many events a stream has.
#[derive(Debug)]
pub(crate) struct StreamEnd {
    pub(crate) stream_id: String,
    pub(crate) stream_version: u64,
}

stored_row! {
    StreamEnd as s in "events";
    key {
        stream_id: String = &s.stream_id;
    }
    fixed {
        stream_version: u64 = s.stream_version;
    }
    changing {}
    StreamEnd { stream_id, stream_version }
}

stored_row! {
    Instance as i in "instances";
    key {
        instance_id: InstanceId = &i.instance_id;
    }
    fixed {
        region_id: RegionId = &i.region_id;
        registered_at: Timestamp = i.registered_at;
        registered_position: u64 = i.registered_position;
    }
    changing {
        owner_account_id: AccountId = &i.owner_account_id;
        edition: Edition = i.edition;
        revision: u64 = i.revision;
        trust_position: u64 = i.trust_position;
        bundle_digest: Sha256 = &i.bundle_digest;
        set_hash: SetHash = &i.set_hash;
        certificate_count: u32 = i.certificate_count;
        unspent_register_codes: Vec<String> = &i.unspent_register_codes;
        updated_at: Timestamp = i.updated_at;
        updated_position: u64 = i.updated_position;
        stream_version: u64 = i.stream_version;
    }
    Instance {
        instance_id, region_id, owner_account_id, edition, revision, trust_position, bundle_digest, set_hash,
        certificate_count, unspent_register_codes, registered_at, registered_position, updated_at,
        updated_position, stream_version,
    }
}

stored_row! {
    CaCertificate as c in "ca_certificates";
    key {
        instance_id: InstanceId = &c.instance_id;
        sn: SerialNumber = &c.facts.sn;
    }
    fixed {
        sha256: Sha256 = &c.facts.sha256;
        spki_sha256: Sha256 = &c.facts.spki_sha256;
        subject: String = &c.facts.subject;
        subject_key_id: String = &c.facts.subject_key_id;
        issuer: String = &c.facts.issuer;
        not_before: Timestamp = c.facts.not_before;
        not_after: Timestamp = c.facts.not_after;
        ca_content: String = &c.facts.ca_content;
        ca_name: String = &c.ca_name;
        register_code: String = &c.register_code;
        registered_at: Timestamp = c.registered_at;
        registered_position: u64 = c.registered_position;
    }
    changing {
        state: String = state_name(c.state);
        inactivation_scope: Option<InactivationScope> = inactivation_scope(c.state);
        state_changed_at: Timestamp = c.state_changed_at;
        state_changed_by: String = &c.state_changed_by;
        state_reason: String = &c.state_reason;
        revision: u64 = c.revision;
        position: u64 = c.position;
        stream_version: u64 = c.stream_version;
    }
    CaCertificate {
        facts: Arc::new(CertificateFacts {
            sn, sha256, spki_sha256, subject, subject_key_id, issuer, not_before, not_after, ca_content,
        }),
        state: ca_state(&state, inactivation_scope)?,
        instance_id, ca_name, register_code, registered_at, registered_position, state_changed_at,
        state_changed_by, state_reason, revision, position, stream_version,
    }
}

/// A register code that a registration has used.
#[derive(Debug)]
pub(crate) struct SpentRegisterCode {
    pub(crate) instance_id: InstanceId,
    pub(crate) register_code: String,
    pub(crate) position: u64,
}

stored_row! {
    SpentRegisterCode as s in "spent_register_codes";
    key {
        instance_id: InstanceId = &s.instance_id;
        register_code: String = &s.register_code;
    }
    fixed {
        position: u64 = s.position;
    }
    changing {}
    SpentRegisterCode { instance_id, register_code, position }
}

impl From<&(InstanceId, String, u64)> for SpentRegisterCode {
    fn from((instance_id, register_code, position): &(InstanceId, String, u64)) -> Self {
        let (instance_id, register_code) = (instance_id.clone(), register_code.clone());
        Self { instance_id, register_code, position: *position }
    }
}

/// A reply as it is stored, see [`crate::replies`].
#[derive(Debug)]
pub(crate) struct ReplyRow {
    pub(crate) account_id: AccountId,
    pub(crate) request_id: Uuid,
    pub(crate) fingerprint: Sha256,
    /// JSON.
    pub(crate) reply: String,
    pub(crate) created_at: Timestamp,
}

stored_row! {
    ReplyRow as r in "replies";
    key {
        account_id: AccountId = &r.account_id;
        request_id: Uuid = r.request_id;
    }
    fixed {
        fingerprint: Sha256 = &r.fingerprint;
        reply: String as Json = &r.reply;
        created_at: Timestamp = r.created_at;
    }
    changing {}
    ReplyRow { account_id, request_id, fingerprint, reply, created_at }
}

stored_row! {
    BrokerState as b in "broker_receipts";
    key {
        instance_id: InstanceId = &b.instance_id;
        broker_id: BrokerId = &b.broker_id;
    }
    fixed {}
    changing {
        revision: Option<u64> = b.applied.map(|applied| applied.revision);
        digest: Option<Sha256> = b.applied.as_ref().map(|applied| &applied.digest);
        applied_at: Option<Timestamp> = b.applied.and_then(|applied| applied.applied_at);
        sessions_cut: Option<u64> = b.applied.map(|applied| applied.sessions_cut);
        refused_revision: Option<u64> = b.refused.as_ref().map(|refused| refused.revision);
        refusal: Option<String> = b.refused.as_ref().map(|refused| &refused.reason);
        refused_at: Option<Timestamp> = b.refused.as_ref().map(|refused| refused.refused_at);
        outcome: OutcomeKind = b.outcome;
        enforcement: Enforcement = b.enforcement;
        sessions_open: u64 = b.sessions_open;
        received_at: Timestamp = b.received_at;
    }
    BrokerState {
        applied: match (revision, digest, sessions_cut) {
            (None, None, None) => None,
            (Some(revision), Some(digest), Some(sessions_cut)) => {
                Some(AppliedRevision { revision, digest, sessions_cut, applied_at })
            }
            _ => return Err("an applied revision that is not whole".to_owned()),
        },
        refused: match (refused_revision, refusal, refused_at) {
            (None, None, None) => None,
            (Some(revision), Some(reason), Some(refused_at)) => {
                Some(RefusedRevision { revision, reason, refused_at })
            }
            _ => return Err("a refused revision that is not whole".to_owned()),
        },
        instance_id, broker_id, outcome, enforcement, sessions_open, received_at,
    }
}

stored_row! {
    RefusedCall as r in "refusals";
    key {}
    fixed {
        first_at: Timestamp = r.first_at;
        last_at: Timestamp = r.last_at;
        attempts: u64 = r.attempts;
        principal: String = &r.principal;
        account_id: String = &r.account_id;
        method: String = &r.method;
        code: String = &r.code;
        message: String = &r.message;
        instance_id: String = &r.instance_id;
        source_address: String = &r.source_address;
        request_id: String = &r.request_id;
    }
    changing {}
    RefusedCall {
        first_at, last_at, attempts, principal, account_id, method, code, message, instance_id,
        source_address, request_id,
    }
}

const fn state_name(state: CaState) -> &'static str {
    match state {
        CaState::Active => "ACTIVE",
        CaState::Inactive(_) => "INACTIVE",
    }
}

const fn inactivation_scope(state: CaState) -> Option<InactivationScope> {
    match state {
        CaState::Active => None,
        CaState::Inactive(scope) => Some(scope),
    }
}

fn ca_state(name: &str, scope: Option<InactivationScope>) -> Result<CaState, String> {
    match (name, scope) {
        ("ACTIVE", None) => Ok(CaState::Active),
        ("INACTIVE", Some(scope)) => Ok(CaState::Inactive(scope)),
        _ => Err(format!("state {name:?} with scope {scope:?}")),
    }
}
