//! The RPCs of the table, each with the call and with what is its own in the table.

use catrust_proto::v1::*;
use catrust_tests::certificates::unique;
use catrust_tests::client::Caller;
use catrust_tests::deployment::ACCOUNT;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tonic::{Response, Status, Streaming};

use super::{NO_PERMISSION, NO_PLATINUM, NOT_OWNER, Verdict};

/// What a call works on.
pub struct Cell {
    /// An instance with one active CA certificate.
    pub id: String,
    /// That CA certificate.
    pub sn: String,
    /// Registers another one.
    pub registration: RegisterCaCertificateRequest,
}

/// One RPC.
pub struct Row {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Whether only operators of catrust may call it.
    pub for_operators: bool,
    /// Of somebody of another account, who may do everything there.
    pub other_account: Verdict,
    /// Of somebody who may do everything but `mq:MqttInstanceAccess`.
    pub without_dependent: Verdict,
    /// On an instance that is not Platinum.
    pub wrong_edition: Verdict,
    /// Makes the call, and reads the first message where it is a stream.
    pub call: for<'a> fn(&'a Caller, &'a Cell) -> BoxFuture<'a, Result<(), Status>>,
}

type Call = for<'a> fn(&'a Caller, &'a Cell) -> BoxFuture<'a, Result<(), Status>>;

/// Of the owners of instances: the account is checked, and nothing else.
const fn of_owners(path: &'static str, call: Call) -> Row {
    Row {
        path,
        for_operators: false,
        other_account: NOT_OWNER,
        without_dependent: Verdict::Allowed,
        wrong_edition: Verdict::Allowed,
        call,
    }
}

/// As [`of_owners`], and it changes states: needs the dependent action, and Platinum.
const fn of_states(path: &'static str, call: Call) -> Row {
    Row { without_dependent: NO_PERMISSION, wrong_edition: NO_PLATINUM, ..of_owners(path, call) }
}

/// Of operators of catrust: others are refused, whatever policies say.
const fn of_operators(path: &'static str, call: Call) -> Row {
    Row { for_operators: true, other_account: NO_PERMISSION, ..of_owners(path, call) }
}

/// Every RPC of the contract.
pub const ROWS: &[Row] = &[
    of_owners("/catrust.v1.CaCertificateService/GetRegisterCode", |caller, cell| {
        let request = GetRegisterCodeRequest { mqtt_instance_id: cell.id.clone(), ..Default::default() };
        async { one(caller.ca.clone().get_register_code(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.CaCertificateService/RegisterCaCertificate", |caller, cell| {
        async { one(caller.ca.clone().register_ca_certificate(cell.registration.clone()).await) }.boxed()
    }),
    of_owners("/catrust.v1.CaCertificateService/GetCaCertificate", |caller, cell| {
        let request = GetCaCertificateRequest { mqtt_instance_id: cell.id.clone(), sn: cell.sn.clone() };
        async { one(caller.ca.clone().get_ca_certificate(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.CaCertificateService/ListCaCertificates", |caller, cell| {
        let request = ListCaCertificatesRequest { mqtt_instance_id: cell.id.clone(), ..Default::default() };
        async { one(caller.ca.clone().list_ca_certificates(request).await) }.boxed()
    }),
    of_states("/catrust.v1.CaCertificateService/InactivateCaCertificate", |caller, cell| {
        let request = InactivateCaCertificateRequest {
            mqtt_instance_id: cell.id.clone(),
            sn: cell.sn.clone(),
            ..Default::default()
        };
        async { one(caller.ca.clone().inactivate_ca_certificate(request).await) }.boxed()
    }),
    of_states("/catrust.v1.CaCertificateService/ActivateCaCertificate", |caller, cell| {
        let request = ActivateCaCertificateRequest {
            mqtt_instance_id: cell.id.clone(),
            sn: cell.sn.clone(),
            ..Default::default()
        };
        async { one(caller.ca.clone().activate_ca_certificate(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.CaCertificateService/DeleteCaCertificate", |caller, cell| {
        let request = DeleteCaCertificateRequest {
            mqtt_instance_id: cell.id.clone(),
            sn: cell.sn.clone(),
            ..Default::default()
        };
        async { one(caller.ca.clone().delete_ca_certificate(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.CaCertificateService/ListCaCertificateEvents", |caller, cell| {
        let request =
            ListCaCertificateEventsRequest { mqtt_instance_id: cell.id.clone(), ..Default::default() };
        async { one(caller.ca.clone().list_ca_certificate_events(request).await) }.boxed()
    }),
    // Across an account it is another question, with the same answers.
    of_owners("/catrust.v1.CaCertificateService/ListCaCertificateEvents", |caller, _| {
        let request = ListCaCertificateEventsRequest { account_id: ACCOUNT.to_owned(), ..Default::default() };
        async { one(caller.ca.clone().list_ca_certificate_events(request).await) }.boxed()
    }),
    of_operators("/catrust.v1.InstanceService/RegisterInstance", |caller, _| {
        let request = RegisterInstanceRequest {
            mqtt_instance_id: unique("matrix"),
            region_id: "r".to_owned(),
            owner_account_id: ACCOUNT.to_owned(),
            edition: Edition::Standard.into(),
            ..Default::default()
        };
        async { one(caller.instances.clone().register_instance(request).await) }.boxed()
    }),
    of_operators("/catrust.v1.InstanceService/UpdateInstance", |caller, cell| {
        let request = UpdateInstanceRequest {
            mqtt_instance_id: cell.id.clone(),
            edition: Edition::Professional.into(),
            ..Default::default()
        };
        async { one(caller.instances.clone().update_instance(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.InstanceService/GetInstance", |caller, cell| {
        let request = GetInstanceRequest { mqtt_instance_id: cell.id.clone() };
        async { one(caller.instances.clone().get_instance(request).await) }.boxed()
    }),
    of_operators("/catrust.v1.InstanceService/ListInstances", |caller, _| {
        let request = ListInstancesRequest::default();
        async { one(caller.instances.clone().list_instances(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.TrustService/GetTrustBundle", |caller, cell| {
        let request = GetTrustBundleRequest { mqtt_instance_id: cell.id.clone(), at: None };
        async { one(caller.trust.clone().get_trust_bundle(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.TrustService/WatchTrust", |caller, cell| {
        let request = WatchTrustRequest { mqtt_instance_id: cell.id.clone(), ..Default::default() };
        async { first(caller.trust.clone().watch_trust(request).await).await }.boxed()
    }),
    of_owners("/catrust.v1.TrustService/ReportReceipt", |caller, cell| {
        let request = ReportReceiptRequest {
            mqtt_instance_id: cell.id.clone(),
            broker_id: "gate-1".to_owned(),
            outcome: ReceiptOutcome::Refused.into(),
            refusal: "a test".to_owned(),
            enforcement: Enforcement::Tls.into(),
            ..Default::default()
        };
        async { one(caller.trust.clone().report_receipt(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.AuditService/ProveEvent", |caller, cell| {
        let history =
            ListCaCertificateEventsRequest { mqtt_instance_id: cell.id.clone(), ..Default::default() };
        async {
            // Who may not list has no event to name: any will do to be refused.
            let events = caller.ca.clone().list_ca_certificate_events(history).await;
            let events = events.map(|events| events.into_inner().events).unwrap_or_default();
            let position = events.first().map_or(1, |event| event.position);
            let event = Some(prove_event_request::Event::Position(position));
            let request = ProveEventRequest { mqtt_instance_id: cell.id.clone(), event };
            one(caller.audit.clone().prove_event(request).await)
        }
        .boxed()
    }),
    of_owners("/catrust.v1.AuditService/ListRefusals", |caller, _| {
        let request = ListRefusalsRequest { account_id: ACCOUNT.to_owned(), ..Default::default() };
        async { one(caller.audit.clone().list_refusals(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.FleetService/ListBrokers", |caller, cell| {
        let request = ListBrokersRequest { mqtt_instance_id: cell.id.clone() };
        async { one(caller.fleet.clone().list_brokers(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.FleetService/GetPropagation", |caller, cell| {
        let request = GetPropagationRequest { mqtt_instance_id: cell.id.clone(), revision: 0 };
        async { one(caller.fleet.clone().get_propagation(request).await) }.boxed()
    }),
    of_owners("/catrust.v1.FleetService/WatchPropagation", |caller, cell| {
        let request = WatchPropagationRequest { mqtt_instance_id: cell.id.clone(), revision: 0 };
        async { first(caller.fleet.clone().watch_propagation(request).await).await }.boxed()
    }),
];

fn one<T>(answer: Result<Response<T>, Status>) -> Result<(), Status> {
    answer.map(drop)
}

async fn first<T>(answer: Result<Response<Streaming<T>>, Status>) -> Result<(), Status> {
    match answer?.into_inner().message().await? {
        Some(_) => Ok(()),
        None => Err(Status::internal("the stream ended without a word")),
    }
}
