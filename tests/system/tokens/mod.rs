//! Callers with a JWT: what a token must be, whose keys count, and how it is bound to the
//! connection.

mod binding;
mod keys;
mod refusals;
mod streams;

use std::time::Duration;

use catrust_proto::v1::{GetInstanceRequest, GetInstanceResponse};
use catrust_tests::client::{Caller, refused};
use catrust_tests::deployment::{ACCOUNT, Deployment, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::issuer::{self, Publisher};
use tonic::{Code, Status};

/// `alice` and `bob` may read instances of [`ACCOUNT`].
fn plan() -> Plan {
    let may_read = |user| {
        format!(
            "permit(principal == Principal::\"{user}\", action == Action::\"mq:GetInstance\", resource);\n"
        )
    };
    let policy = may_read("alice") + &may_read("bob");
    issuer::plan(Plan { nats: None, ..Plan::default() }).policy(&format!("{ACCOUNT}/people.cedar"), &policy)
}

/// One replica that gets the issuer's keys from where they are published.
async fn deployed(publisher: &Publisher) -> anyhow::Result<(Deployment, Replica)> {
    let deployment = plan().set("auth.jwt.key_set_url", &format!("{:?}", publisher.url())).deploy().await?;
    let replica = deployment.replica("a").await?;
    Ok((deployment, replica))
}

/// A read by somebody with this token.
async fn read(replica: &Replica, id: &str, token: &str) -> Result<GetInstanceResponse, Status> {
    let caller = replica.server.caller(Some(token)).map_err(|error| Status::internal(error.to_string()))?;
    read_by(&caller, id).await
}

async fn read_by(caller: &Caller, id: &str) -> Result<GetInstanceResponse, Status> {
    let request = GetInstanceRequest { mqtt_instance_id: id.to_owned() };
    Ok(caller.instances.clone().get_instance(request).await?.into_inner())
}

/// Expects no identity; gives the request id, by which the log has the reason.
fn no_identity(answer: Result<GetInstanceResponse, Status>) -> anyhow::Result<String> {
    let refusal = refused(answer, Code::Unauthenticated, "Unauthenticated")?;
    anyhow::ensure!(refusal.message.starts_with("no valid identity"), "{refusal:?}");
    Ok(refusal.request_id)
}

/// How long a line may take into the log.
const LOGGED: Duration = Duration::from_secs(10);

/// Expects the log to have that reason for the refusal.
async fn logged(replica: &Replica, request_id: &str, reason: &str, within: Duration) -> anyhow::Result<()> {
    eventually(within, "the reason is in the log", async || {
        let lines = replica.server.output().lines();
        match lines.iter().find(|line| line.contains(request_id)) {
            Some(line) if line.contains(reason) => Ok(()),
            told => Err(format!("expected {reason:?}, have {told:?}")),
        }
    })
    .await
}
