//! `AuditService`.

mod list_refusals;
mod prove_event;

use std::sync::Arc;

use catrust_proto::v1;
use catrust_proto::v1::audit_service_server::AuditService;
use tonic::{Request, Response, Status};

use super::Api;
use super::call::answer;

#[derive(Clone)]
pub(crate) struct Audit(pub(crate) Arc<Api>);

#[tonic::async_trait]
impl AuditService for Audit {
    async fn prove_event(
        &self,
        request: Request<v1::ProveEventRequest>,
    ) -> Result<Response<v1::ProveEventResponse>, Status> {
        answer!(&self.0, request, prove_event::handle)
    }

    async fn list_refusals(
        &self,
        request: Request<v1::ListRefusalsRequest>,
    ) -> Result<Response<v1::ListRefusalsResponse>, Status> {
        answer!(&self.0, request, list_refusals::handle)
    }
}
