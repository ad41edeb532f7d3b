//! `FleetService`: what brokers said, to whichever replica.

mod get_propagation;
mod list_brokers;
mod watch_propagation;

use std::sync::Arc;

use catrust_domain::log_epoch::spell_revision;
use catrust_domain::{InstanceId, Rejection};
use catrust_proto::v1;
use catrust_proto::v1::fleet_service_server::FleetService;
use tonic::{Request, Response, Status};

use super::Api;
use super::call::answer;
use crate::error::ApiError;

#[derive(Clone)]
pub(crate) struct Fleet(pub(crate) Arc<Api>);

#[tonic::async_trait]
impl FleetService for Fleet {
    type WatchPropagationStream = watch_propagation::PropagationStream;

    async fn list_brokers(
        &self,
        request: Request<v1::ListBrokersRequest>,
    ) -> Result<Response<v1::ListBrokersResponse>, Status> {
        answer!(&self.0, request, list_brokers::handle)
    }

    async fn get_propagation(
        &self,
        request: Request<v1::GetPropagationRequest>,
    ) -> Result<Response<v1::GetPropagationResponse>, Status> {
        answer!(&self.0, request, get_propagation::handle)
    }

    async fn watch_propagation(
        &self,
        request: Request<v1::WatchPropagationRequest>,
    ) -> Result<Response<Self::WatchPropagationStream>, Status> {
        answer!(&self.0, request, watch_propagation::handle)
    }
}

/// The revision that is asked about, where 0 is the current one.
async fn revision(api: &Api, id: &InstanceId, asked: u64) -> Result<u64, ApiError> {
    let current = api.store.find_instance(id).await?.ok_or(Rejection::InstanceNotFound)?.revision;
    match asked {
        0 => Ok(current),
        asked if asked <= current => Ok(asked),
        asked => Err(ApiError::RevisionNotFound(format!(
            "the instance has not reached {}; it is at {}",
            spell_revision(asked),
            spell_revision(current)
        ))),
    }
}
