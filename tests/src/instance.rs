//! The words of the domain for tests: register, inactivate, activate, look.

use catrust_proto::v1::{
    ActivateCaCertificateRequest, ActivateCaCertificateResponse, CaCertificate, DeleteCaCertificateRequest,
    DeleteCaCertificateResponse, Edition, GetCaCertificateRequest, GetRegisterCodeRequest,
    GetTrustBundleRequest, InactivateCaCertificateRequest, InactivateCaCertificateResponse,
    RegisterCaCertificateRequest, RegisterCaCertificateResponse, RegisterInstanceRequest, TrustBundle,
};
use tonic::Status;

use crate::certificates::{Ca, unique};
use crate::client::Caller;

/// A registered instance and somebody who may change it.
#[derive(Clone, Debug)]
pub struct TestInstance {
    /// The caller.
    pub caller: Caller,
    /// Its id.
    pub id: String,
}

impl TestInstance {
    /// Registers a Platinum instance of `account` by `operator`, for `caller` to use.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn register(operator: &Caller, caller: &Caller, account: &str) -> Result<Self, Status> {
        Self::of_edition(operator, caller, account, Edition::Platinum).await
    }

    /// As [`TestInstance::register`], of an edition.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn of_edition(
        operator: &Caller,
        caller: &Caller,
        account: &str,
        edition: Edition,
    ) -> Result<Self, Status> {
        Self::named(&unique("mqtt"), operator, caller, account, edition).await
    }

    /// As [`TestInstance::of_edition`], with an id that a configuration names.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn named(
        id: &str,
        operator: &Caller,
        caller: &Caller,
        account: &str,
        edition: Edition,
    ) -> Result<Self, Status> {
        let id = id.to_owned();
        let request = RegisterInstanceRequest {
            mqtt_instance_id: id.clone(),
            region_id: "cn-hangzhou".to_owned(),
            owner_account_id: account.to_owned(),
            edition: edition.into(),
            request_id: String::new(),
        };
        operator.instances.clone().register_instance(request).await?;
        Ok(Self { caller: caller.clone(), id })
    }

    /// A fresh register code.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn code(&self) -> Result<String, Status> {
        let request = GetRegisterCodeRequest { mqtt_instance_id: self.id.clone(), request_id: String::new() };
        Ok(self.caller.ca.clone().get_register_code(request).await?.into_inner().register_code)
    }

    /// The request that registers `ca` with proof of possession under `code`.
    ///
    /// # Errors
    /// When the verification certificate cannot be made.
    pub fn registration(&self, ca: &Ca, code: &str) -> anyhow::Result<RegisterCaCertificateRequest> {
        Ok(RegisterCaCertificateRequest {
            mqtt_instance_id: self.id.clone(),
            ca_name: "a test CA".to_owned(),
            ca_content: ca.pem.clone(),
            verification_content: ca.verification(code)?,
            request_id: String::new(),
        })
    }

    /// Registers `ca`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn register_ca(&self, ca: &Ca) -> anyhow::Result<RegisterCaCertificateResponse> {
        let request = self.registration(ca, &self.code().await?)?;
        Ok(self.caller.ca.clone().register_ca_certificate(request).await?.into_inner())
    }

    /// Makes and registers a CA.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn new_ca(&self) -> anyhow::Result<Ca> {
        let ca = Ca::root(&unique("CA"))?;
        self.register_ca(&ca).await?;
        Ok(ca)
    }

    /// The request that inactivates `sn`.
    #[must_use]
    pub fn inactivation(&self, sn: &str) -> InactivateCaCertificateRequest {
        InactivateCaCertificateRequest {
            mqtt_instance_id: self.id.clone(),
            sn: sn.to_owned(),
            reason: "a test".to_owned(),
            ..Default::default()
        }
    }

    /// The request that activates `sn`.
    #[must_use]
    pub fn activation(&self, sn: &str) -> ActivateCaCertificateRequest {
        ActivateCaCertificateRequest {
            mqtt_instance_id: self.id.clone(),
            sn: sn.to_owned(),
            reason: "a test".to_owned(),
            ..Default::default()
        }
    }

    /// Turns trust in `sn` off.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn inactivate(&self, sn: &str) -> Result<InactivateCaCertificateResponse, Status> {
        let request = self.inactivation(sn);
        Ok(self.caller.ca.clone().inactivate_ca_certificate(request).await?.into_inner())
    }

    /// Turns trust in `sn` on again.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn activate(&self, sn: &str) -> Result<ActivateCaCertificateResponse, Status> {
        let request = self.activation(sn);
        Ok(self.caller.ca.clone().activate_ca_certificate(request).await?.into_inner())
    }

    /// Forgets `sn`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn delete(&self, sn: &str) -> Result<DeleteCaCertificateResponse, Status> {
        let request = DeleteCaCertificateRequest {
            mqtt_instance_id: self.id.clone(),
            sn: sn.to_owned(),
            ..Default::default()
        };
        Ok(self.caller.ca.clone().delete_ca_certificate(request).await?.into_inner())
    }

    /// Reads `sn`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn get(&self, sn: &str) -> Result<CaCertificate, Status> {
        let request = GetCaCertificateRequest { mqtt_instance_id: self.id.clone(), sn: sn.to_owned() };
        let reply = self.caller.ca.clone().get_ca_certificate(request).await?.into_inner();
        reply.ca_certificate.ok_or_else(|| Status::internal("a reply without a certificate"))
    }

    /// The trust bundle as it is now.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn bundle(&self) -> Result<TrustBundle, Status> {
        let request = GetTrustBundleRequest { mqtt_instance_id: self.id.clone(), at: None };
        let reply = self.caller.trust.clone().get_trust_bundle(request).await?.into_inner();
        reply.bundle.ok_or_else(|| Status::internal("a reply without a bundle"))
    }
}
