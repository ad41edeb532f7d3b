//! `TrustService`: what brokers read, and what they say that they did with it.

mod get_bundle;
mod report_receipt;
mod watch;

use std::sync::Arc;

use catrust_domain::InstanceId;
use catrust_event_store::BundleAt;
use catrust_proto::v1;
use catrust_proto::v1::trust_service_server::TrustService;
use catrust_trust_feed::{Signed as _, message};
use tonic::{Request, Response, Status};

use super::Api;
use super::call::answer;
use crate::error::ApiError;
use crate::ground::ServerInUse;

#[derive(Clone)]
pub(crate) struct Trust(pub(crate) Arc<Api>);

#[tonic::async_trait]
impl TrustService for Trust {
    type WatchTrustStream = watch::WatchStream;

    async fn get_trust_bundle(
        &self,
        request: Request<v1::GetTrustBundleRequest>,
    ) -> Result<Response<v1::GetTrustBundleResponse>, Status> {
        answer!(&self.0, request, get_bundle::handle)
    }

    async fn watch_trust(
        &self,
        request: Request<v1::WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        answer!(&self.0, request, watch::handle)
    }

    async fn report_receipt(
        &self,
        request: Request<v1::ReportReceiptRequest>,
    ) -> Result<Response<v1::ReportReceiptResponse>, Status> {
        answer!(&self.0, request, report_receipt::handle)
    }
}

/// The signed bundle of an instance, `None` where there is none at that point.
async fn signed_bundle(
    api: &Api,
    id: &InstanceId,
    at: BundleAt,
) -> Result<Option<v1::TrustBundle>, ApiError> {
    // Before the bundle is loaded: a pause in between must not make it look younger.
    let issued_at = api.now();
    // An old bundle is folded from the instance's history: a few at once, so that they never
    // hold all connections that users share.
    let _place = match at {
        BundleAt::Now => None,
        BundleAt::Revision(_) | BundleAt::Time(_) => api.old_bundles.acquire().await.ok(),
    };
    let server = ServerInUse::of(&*api.store);
    let Some(bundle) = api.store.load_bundle(id, at).await? else { return Ok(None) };
    let mut message = message::trust_bundle(api.store.log_id(), &bundle, issued_at);
    // After it was read: what is not known to be the log is not signed.
    server.confirmed().await?;
    api.ground.check()?;
    message.sign(api.keys.active()).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(Some(message))
}
