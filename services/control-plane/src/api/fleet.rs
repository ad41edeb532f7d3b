//! `FleetService`. Receipts are not collected yet: every call says so.

use std::pin::Pin;
use std::sync::Arc;

use catrust_proto::v1;
use catrust_proto::v1::fleet_service_server::FleetService;
use futures::Stream;
use tonic::{Request, Response, Status};

use super::call::answer;
use super::{Api, Call};
use crate::error::ApiError;

/// The service, over what every handler needs.
#[derive(Clone)]
pub struct Fleet(pub Arc<Api>);

type PropagationStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPropagationResponse, Status>> + Send>>;

#[tonic::async_trait]
impl FleetService for Fleet {
    type WatchPropagationStream = PropagationStream;

    async fn list_brokers(
        &self,
        request: Request<v1::ListBrokersRequest>,
    ) -> Result<Response<v1::ListBrokersResponse>, Status> {
        answer!(&self.0, request, not_yet)
    }

    async fn get_propagation(
        &self,
        request: Request<v1::GetPropagationRequest>,
    ) -> Result<Response<v1::GetPropagationResponse>, Status> {
        answer!(&self.0, request, not_yet)
    }

    async fn watch_propagation(
        &self,
        request: Request<v1::WatchPropagationRequest>,
    ) -> Result<Response<PropagationStream>, Status> {
        answer!(&self.0, request, not_yet)
    }
}

async fn not_yet<Q, R>(_: &Arc<Api>, _: &mut Call, _: Q) -> Result<R, ApiError> {
    Err(ApiError::Unimplemented("the fleet is not followed in this version: receipts are not collected yet"))
}
