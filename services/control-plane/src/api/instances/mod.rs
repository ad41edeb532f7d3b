//! `InstanceService`, for the operators of catrust itself.
//!
//! Permission is needed as everywhere. Only operators register, change and list
//! instances, of every account; others see their own.

mod get;
mod list;
mod register;
mod update;

use std::sync::Arc;

use catrust_domain::{AccountId, Rejection};
use catrust_proto::v1;
use catrust_proto::v1::instance_service_server::InstanceService;
use tonic::{Request, Response, Status};

use super::call::answer;
use super::{Api, Call};
use crate::error::ApiError;
use catrust_access::Action;

#[derive(Clone)]
pub(crate) struct Instances(pub(crate) Arc<Api>);

#[tonic::async_trait]
impl InstanceService for Instances {
    async fn register_instance(
        &self,
        request: Request<v1::RegisterInstanceRequest>,
    ) -> Result<Response<v1::RegisterInstanceResponse>, Status> {
        answer!(&self.0, request, register::handle)
    }

    async fn update_instance(
        &self,
        request: Request<v1::UpdateInstanceRequest>,
    ) -> Result<Response<v1::UpdateInstanceResponse>, Status> {
        answer!(&self.0, request, update::handle)
    }

    async fn get_instance(
        &self,
        request: Request<v1::GetInstanceRequest>,
    ) -> Result<Response<v1::GetInstanceResponse>, Status> {
        answer!(&self.0, request, get::handle)
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        answer!(&self.0, request, list::handle)
    }
}

/// What changes instances is for operators: an owner could make itself Platinum.
fn check_operator(call: &Call, action: Action) -> Result<(), ApiError> {
    if call.identity.operator { Ok(()) } else { Err(ApiError::OperatorsOnly { action: action.name() }) }
}

/// Operators may see every instance, others their own.
fn check_owner(call: &Call, owner: &AccountId) -> Result<(), ApiError> {
    if call.identity.operator || call.identity.account_id == *owner {
        Ok(())
    } else {
        Err(Rejection::NotOwner.into())
    }
}
