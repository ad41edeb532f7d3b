//! From the words of the domain to those of the contract.

use catrust_domain::{
    BrokerId, CaCertificate, CaState, Edition, Enforcement, FleetMember, InactivationScope, Instance,
    InstanceId, Propagation, RecordedEvent, SerialNumber, error_chain,
};
use catrust_proto::v1;
use catrust_trust_feed::message::timestamp;

use crate::error::ApiError;

pub(crate) fn instance(instance: &Instance) -> v1::Instance {
    v1::Instance {
        mqtt_instance_id: instance.instance_id.to_string(),
        region_id: instance.region_id.to_string(),
        owner_account_id: instance.owner_account_id.to_string(),
        edition: edition(instance.edition).into(),
        revision: instance.revision,
        bundle_digest: instance.bundle_digest.to_string(),
        ca_certificate_count: instance.certificate_count,
        registered_at: Some(timestamp(instance.registered_at)),
        updated_at: Some(timestamp(instance.updated_at)),
    }
}

const fn edition(edition: Edition) -> v1::Edition {
    match edition {
        Edition::Platinum => v1::Edition::Platinum,
        Edition::Professional => v1::Edition::Professional,
        Edition::Standard => v1::Edition::Standard,
    }
}

const fn state(state: CaState) -> (v1::CaCertificateState, v1::InactivationScope) {
    match state {
        CaState::Active => (v1::CaCertificateState::Active, v1::InactivationScope::Unspecified),
        CaState::Inactive(InactivationScope::Key) => {
            (v1::CaCertificateState::Inactive, v1::InactivationScope::Key)
        }
        CaState::Inactive(InactivationScope::Certificate) => {
            (v1::CaCertificateState::Inactive, v1::InactivationScope::Certificate)
        }
    }
}

pub(crate) fn ca_certificate(
    certificate: &CaCertificate,
    same_key_sns: &[SerialNumber],
) -> v1::CaCertificate {
    let facts = &certificate.facts;
    let (state, scope) = state(certificate.state);
    v1::CaCertificate {
        mqtt_instance_id: certificate.instance_id.to_string(),
        sn: facts.sn.to_string(),
        ca_name: certificate.ca_name.clone(),
        state: state.into(),
        sha256: facts.sha256.to_string(),
        spki_sha256: facts.spki_sha256.to_string(),
        subject: facts.subject.clone(),
        issuer: facts.issuer.clone(),
        not_before: Some(timestamp(facts.not_before)),
        not_after: Some(timestamp(facts.not_after)),
        ca_content: facts.ca_content.clone(),
        register_code: certificate.register_code.clone(),
        registered_at: Some(timestamp(certificate.registered_at)),
        state_changed_at: Some(timestamp(certificate.state_changed_at)),
        actor: certificate.state_changed_by.clone(),
        state_reason: certificate.state_reason.clone(),
        revision: certificate.revision,
        same_key_sns: same_key_sns.iter().map(ToString::to_string).collect(),
        inactivation_scope: scope.into(),
        subject_key_id: facts.subject_key_id.clone(),
    }
}

/// A trust change as the history tells it.
///
/// # Errors
/// INTERNAL for a row that is no trust change or cannot be read.
pub(crate) fn ca_certificate_event(recorded: RecordedEvent) -> Result<v1::CaCertificateEvent, ApiError> {
    let event = recorded.decode().map_err(|error| ApiError::Internal(error_chain(&error)))?;
    let (Some(effect), Some(revision)) = (event.trust_effect(), recorded.revision) else {
        return Err(ApiError::Internal(format!("event {} is no trust change", recorded.position)));
    };
    let state = effect.state.map(state);
    Ok(v1::CaCertificateEvent {
        position: recorded.position,
        revision,
        event_type: recorded.event_type,
        actor: recorded.actor,
        reason: effect.reason.to_owned(),
        occurred_at: Some(timestamp(recorded.occurred_at)),
        request_id: recorded.request_id.to_string(),
        event_hash: recorded.hash.to_string(),
        sn: effect.certificate.sn.to_string(),
        sha256: effect.certificate.sha256.to_string(),
        event_id: recorded.event_id.to_string(),
        mqtt_instance_id: recorded.instance_id.to_string(),
        account_id: recorded.account_id.to_string(),
        policy_version: recorded.policy_version,
        source_address: recorded.source_address,
        state: state.map_or(0, |(state, _)| state.into()),
        inactivation_scope: state.map_or(0, |(_, scope)| scope.into()),
        bundle_digest: recorded.bundle_digest.map(|digest| digest.to_string()).unwrap_or_default(),
        traceparent: recorded.traceparent,
    })
}

/// Names of each kind in a propagation.
const MAX_NAMES: usize = 1_000;

pub(crate) fn propagation(id: &InstanceId, found: &Propagation) -> v1::Propagation {
    let count = |brokers: usize| u32::try_from(brokers).unwrap_or(u32::MAX);
    let names =
        |names: &mut dyn Iterator<Item = &BrokerId>| names.take(MAX_NAMES).map(ToString::to_string).collect();
    v1::Propagation {
        mqtt_instance_id: id.to_string(),
        revision: found.revision,
        applied: count(found.applied),
        pending: count(found.pending.len()),
        refused: count(found.refused.len()),
        lost: count(found.lost.len()),
        pending_broker_ids: names(&mut found.pending.iter()),
        refused_broker_ids: names(&mut found.refused.iter().map(|(name, _)| name)),
        lost_broker_ids: names(&mut found.lost.iter()),
    }
}

pub(crate) fn broker(member: &FleetMember, lost: bool) -> v1::Broker {
    let broker = &member.broker;
    let (applied, refused) = (broker.applied.as_ref(), broker.refused.as_ref());
    let enforcement = match broker.enforcement {
        Enforcement::Tls => v1::Enforcement::Tls,
        Enforcement::Connect => v1::Enforcement::Connect,
    };
    v1::Broker {
        broker_id: broker.broker_id.to_string(),
        applied_revision: applied.map_or(0, |applied| applied.revision),
        digest_agrees: member.digest_agrees(),
        last_contact_at: Some(timestamp(broker.received_at)),
        sessions_open: broker.sessions_open,
        enforcement: enforcement.into(),
        refusal: refused.map(|refused| refused.reason.clone()).unwrap_or_default(),
        lost,
        sessions_cut: applied.map_or(0, |applied| applied.sessions_cut),
        applied_at: applied.and_then(|applied| applied.applied_at).map(timestamp),
        refused_revision: refused.map_or(0, |refused| refused.revision),
        refused_at: refused.map(|refused| timestamp(refused.refused_at)),
        refused: broker.outstanding_refusal().is_some(),
    }
}

/// The certificate of a reply.
///
/// # Errors
/// INTERNAL when the reply is of another command.
pub(crate) fn reply_certificate(body: &catrust_domain::ReplyBody) -> Result<v1::CaCertificate, ApiError> {
    match body {
        catrust_domain::ReplyBody::CaCertificate { certificate, same_key_sns } => {
            Ok(ca_certificate(certificate, same_key_sns))
        }
        _ => Err(unexpected_reply()),
    }
}

/// The instance of a reply.
///
/// # Errors
/// INTERNAL when the reply is of another command.
pub(crate) fn reply_instance(body: &catrust_domain::ReplyBody) -> Result<v1::Instance, ApiError> {
    match body {
        catrust_domain::ReplyBody::Instance(state) => Ok(instance(state)),
        _ => Err(unexpected_reply()),
    }
}

/// A stored reply that does not fit its request. The fingerprint names the method,
/// so that this is a defect or damage, not the caller's doing.
pub(crate) fn unexpected_reply() -> ApiError {
    ApiError::Internal("the reply is of another command".to_owned())
}
