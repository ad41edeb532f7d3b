//! `GetTrustBundle`.

use catrust_domain::log_epoch::spell_revision;
use catrust_domain::{Rejection, Timestamp};
use catrust_event_store::BundleAt;
use catrust_proto::v1;
use catrust_proto::v1::get_trust_bundle_request::At;

use super::signed_bundle;
use crate::api::{Api, Call, Fields};
use crate::error::ApiError;
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::GetTrustBundleRequest,
) -> Result<v1::GetTrustBundleResponse, ApiError> {
    let mut fields = Fields::default();
    let Some(id) = fields.instance_id(&request.mqtt_instance_id) else { return Err(fields.into_error()) };
    let at = point(request.at.as_ref(), api.now())?;

    api.admit(call, &id, Action::GetTrustBundle).await?;
    let bundle = signed_bundle(api, &id, at).await?.ok_or_else(|| not_there(at))?;
    Ok(v1::GetTrustBundleResponse {
        request_id: call.request_id.to_string(),
        bundle: Some(bundle),
        key_set: api.keys.key_set(),
    })
}

fn point(at: Option<&At>, now: Timestamp) -> Result<BundleAt, ApiError> {
    match at {
        None => Ok(BundleAt::Now),
        // i64 is what the databases hold; no instance gets there.
        Some(At::Revision(revision)) if i64::try_from(*revision).is_err() => {
            Err(not_there(BundleAt::Revision(*revision)))
        }
        Some(At::Revision(revision)) => Ok(BundleAt::Revision(*revision)),
        Some(At::AsOf(time)) => {
            let time = catrust_trust_feed::canonical::micros(time)
                .map(Timestamp::from_micros)
                .ok_or_else(|| ApiError::field("as_of", "is out of range"))?;
            if time > now {
                return Err(ApiError::field(
                    "as_of",
                    "is in the future: what will be trusted then is not known",
                ));
            }
            Ok(BundleAt::Time(time))
        }
    }
}

fn not_there(at: BundleAt) -> ApiError {
    match at {
        // The instance was admitted, so that it exists.
        BundleAt::Now => Rejection::InstanceNotFound.into(),
        BundleAt::Revision(revision) => {
            ApiError::RevisionNotFound(format!("the instance has not reached {}", spell_revision(revision)))
        }
        BundleAt::Time(time) => {
            ApiError::RevisionNotFound(format!("the instance was not registered yet at {time}"))
        }
    }
}
