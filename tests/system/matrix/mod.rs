//! Who may call what: every RPC × every way of being refused, and of being allowed, once by
//! client certificates and once by tokens, with policies in a folder.
//!
//! [`rows`] has the RPCs, [`columns`] the callers. The rows are compared with the contract
//! itself: an RPC without a row fails the test.

mod columns;
mod rows;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Context as _;
use catrust_tests::client::{Caller, Refusal};
use catrust_tests::deployment::{ACCOUNT, OPERATOR, OWNER};
use catrust_tests::instance::TestInstance;
use catrust_tests::tls::Tls;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};

use self::columns::{COLUMNS, Callers, Column, Credential};
use self::rows::{Cell, ROWS, Row};

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Allowed,
    Refused(Code, &'static str),
}

const NO_IDENTITY: Verdict = Verdict::Refused(Code::Unauthenticated, "Unauthenticated");
const NO_PERMISSION: Verdict = Verdict::Refused(Code::PermissionDenied, "PermissionCheckFailed");
const NOT_OWNER: Verdict = Verdict::Refused(Code::PermissionDenied, "MqttOwnerCheckError");
const NO_PLATINUM: Verdict = Verdict::Refused(Code::FailedPrecondition, "EditionNotSupported");

/// The whole table: what each row says of each column.
fn expected(row: &Row, column: Column) -> Verdict {
    match column {
        Column::NoIdentity | Column::WrongIdentity => NO_IDENTITY,
        Column::OtherAccount => row.other_account,
        Column::NoPolicy | Column::DenyWins => NO_PERMISSION,
        Column::WithoutDependent => row.without_dependent,
        Column::WrongEdition => row.wrong_edition,
        Column::Allowed => Verdict::Allowed,
    }
}

/// The methods of the services of the contract, as `/package.Service/Method`.
fn contract() -> anyhow::Result<BTreeSet<String>> {
    let files = FileDescriptorSet::decode(catrust_proto::FILE_DESCRIPTOR_SET)?;
    let own = files.file.iter().filter(|file| file.package().starts_with("catrust."));
    let methods = own.flat_map(|file| {
        file.service.iter().flat_map(move |service| {
            let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            service.method.iter().map(move |method| path(method.name()))
        })
    });
    Ok(methods.collect())
}

#[test]
fn every_rpc_of_the_contract_has_a_row() -> anyhow::Result<()> {
    let contract = contract()?;
    assert!(contract.contains("/catrust.v1.TrustService/WatchTrust"), "{contract:?}");
    let rows: BTreeSet<_> = ROWS.iter().map(|row| row.path.to_owned()).collect();
    assert_eq!(rows, contract, "add a row to tests/system/matrix/rows.rs, or remove one");
    Ok(())
}

/// What a reply is, in the words of a cell.
fn found(answer: Result<(), Status>) -> Result<Verdict, String> {
    let Err(status) = answer else { return Ok(Verdict::Allowed) };
    let refusal = Refusal::of(&status).map_err(|error| format!("{error:#}"))?;
    // `Verdict` borrows its code from this program, so the expected one that is equal is given.
    let known = [NO_IDENTITY, NO_PERMISSION, NOT_OWNER, NO_PLATINUM];
    let same = |cell: &&Verdict| matches!(cell, Verdict::Refused(status, code) if *status == refusal.status && *code == refusal.code);
    known.iter().find(same).copied().ok_or_else(|| format!("{refusal:?}"))
}

/// Runs the table; gives what is not as expected.
async fn run(callers: &Callers, makers: &Makers, credential: Credential) -> anyhow::Result<String> {
    let mut wrong = String::new();
    let untouched = makers.cell(Column::Allowed).await?;
    let mut cells = 0;
    for row in ROWS {
        for column in COLUMNS {
            let wanted = expected(row, column);
            // A refused call changes nothing, so refused cells share an instance.
            let own;
            let cell = if wanted == Verdict::Allowed || column == Column::WrongEdition {
                own = makers.cell(column).await?;
                &own
            } else {
                &untouched
            };
            let caller = callers.of(column, row.for_operators, credential)?;
            let had = found((row.call)(&caller, cell).await);
            if had != Ok(wanted) {
                writeln!(wrong, "{credential:?} {} {column:?}: expected {wanted:?}, had {had:?}", row.path)?;
            }
            cells += 1;
        }
    }
    assert_eq!(cells, ROWS.len() * COLUMNS.len());
    makers.has_not_changed(&untouched).await.context("who is refused changes nothing")?;
    Ok(wrong)
}

/// Who makes what the cells need: the harness's own callers.
struct Makers {
    operator: Caller,
    owner: Caller,
}

impl Makers {
    /// An instance with an active CA certificate and one that is ready to be registered.
    async fn cell(&self, column: Column) -> anyhow::Result<Cell> {
        let instance = TestInstance::register(&self.operator, &self.owner, ACCOUNT).await?;
        let sn = instance.new_ca().await?.sn;
        let code = instance.code().await?;
        let registration =
            instance.registration(&catrust_tests::certificates::Ca::root("to be registered")?, &code)?;
        if column == Column::WrongEdition {
            let request = catrust_proto::v1::UpdateInstanceRequest {
                mqtt_instance_id: instance.id.clone(),
                edition: catrust_proto::v1::Edition::Standard.into(),
                ..Default::default()
            };
            self.operator.instances.clone().update_instance(request).await?;
        }
        Ok(Cell { id: instance.id, sn, registration })
    }

    async fn has_not_changed(&self, cell: &Cell) -> anyhow::Result<()> {
        let instance = TestInstance { caller: self.owner.clone(), id: cell.id.clone() };
        let bundle = instance.bundle().await?;
        anyhow::ensure!(bundle.revision == 1, "{bundle:?}");
        let request = catrust_proto::v1::ListBrokersRequest { mqtt_instance_id: cell.id.clone() };
        let brokers = self.owner.fleet.clone().list_brokers(request).await?.into_inner().brokers;
        anyhow::ensure!(brokers.is_empty(), "{brokers:?}");
        let request = catrust_proto::v1::GetInstanceRequest { mqtt_instance_id: cell.id.clone() };
        let now = self.operator.instances.clone().get_instance(request).await?.into_inner().instance;
        let edition = now.map(|instance| instance.edition());
        anyhow::ensure!(edition == Some(catrust_proto::v1::Edition::Platinum), "{edition:?}");
        Ok(())
    }
}

async fn holds(credential: Credential) -> anyhow::Result<()> {
    let tls = Tls::new()?;
    let (callers, _publisher, plan) = Callers::plan(tls).await?;
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let callers = callers.at(replica.server.address());
    let makers = Makers { operator: callers.with_token(OPERATOR)?, owner: callers.with_token(OWNER)? };
    let wrong = run(&callers, &makers, credential).await?;
    assert!(wrong.is_empty(), "\n{wrong}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_for_client_certificates() -> anyhow::Result<()> {
    holds(Credential::Certificate).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_holds_for_tokens() -> anyhow::Result<()> {
    holds(Credential::Token).await
}
