//! `CaCertificateService`.

mod activate;
mod delete;
mod events;
mod get;
mod get_register_code;
mod inactivate;
mod list;
mod register;
mod state_change;

use std::sync::Arc;

use catrust_proto::v1;
use catrust_proto::v1::ca_certificate_service_server::CaCertificateService;
use tonic::{Request, Response, Status};

use super::Api;
use super::call::answer;

#[derive(Clone)]
pub(crate) struct CaCertificates(pub(crate) Arc<Api>);

#[tonic::async_trait]
impl CaCertificateService for CaCertificates {
    async fn get_register_code(
        &self,
        request: Request<v1::GetRegisterCodeRequest>,
    ) -> Result<Response<v1::GetRegisterCodeResponse>, Status> {
        answer!(&self.0, request, get_register_code::handle)
    }

    async fn register_ca_certificate(
        &self,
        request: Request<v1::RegisterCaCertificateRequest>,
    ) -> Result<Response<v1::RegisterCaCertificateResponse>, Status> {
        answer!(&self.0, request, register::handle)
    }

    async fn get_ca_certificate(
        &self,
        request: Request<v1::GetCaCertificateRequest>,
    ) -> Result<Response<v1::GetCaCertificateResponse>, Status> {
        answer!(&self.0, request, get::handle)
    }

    async fn list_ca_certificates(
        &self,
        request: Request<v1::ListCaCertificatesRequest>,
    ) -> Result<Response<v1::ListCaCertificatesResponse>, Status> {
        answer!(&self.0, request, list::handle)
    }

    async fn inactivate_ca_certificate(
        &self,
        request: Request<v1::InactivateCaCertificateRequest>,
    ) -> Result<Response<v1::InactivateCaCertificateResponse>, Status> {
        answer!(&self.0, request, inactivate::handle)
    }

    async fn activate_ca_certificate(
        &self,
        request: Request<v1::ActivateCaCertificateRequest>,
    ) -> Result<Response<v1::ActivateCaCertificateResponse>, Status> {
        answer!(&self.0, request, activate::handle)
    }

    async fn delete_ca_certificate(
        &self,
        request: Request<v1::DeleteCaCertificateRequest>,
    ) -> Result<Response<v1::DeleteCaCertificateResponse>, Status> {
        answer!(&self.0, request, delete::handle)
    }

    async fn list_ca_certificate_events(
        &self,
        request: Request<v1::ListCaCertificateEventsRequest>,
    ) -> Result<Response<v1::ListCaCertificateEventsResponse>, Status> {
        answer!(&self.0, request, events::handle)
    }
}
