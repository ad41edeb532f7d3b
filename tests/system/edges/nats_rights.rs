//! `deploy/nats/catrust.conf` on a real server, with TLS: each login can do its work, and nothing else.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::Client;
use catrust_proto::v1::{Edition, Wait, wait};
use catrust_tests::broker::{Broker, Device};
use catrust_tests::certificates::Ca;
use catrust_tests::deployment::{ACCOUNT, Deployment, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::foreign::newer_nats;
use catrust_tests::instance::TestInstance;
use catrust_tests::nats::{Nats, Role, Version};

/// How long a refusal or a change may take.
const BOUND: Duration = Duration::from_secs(30);

/// Somebody who has a login, and what NATS refuses to them.
struct Login {
    client: Client,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Login {
    async fn new(nats: &Nats, role: Role) -> anyhow::Result<Self> {
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&refusals);
        let options = nats.options(role)?.event_callback(move |event| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(event.to_string().to_lowercase());
            async {}
        });
        Ok(Self { client: options.connect(nats.url()).await?, refusals })
    }

    /// `act` is `publish` or `subscription`.
    fn refused(&self, act: &str, subject: &str) -> bool {
        let refusal = format!("permissions violation for {act} to \"{}\"", subject.to_lowercase());
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.iter().any(|text| text.contains(&refusal))
    }

    /// Tries to publish on each subject; gives those that were refused.
    async fn publish<'a>(&self, subjects: &[&'a str]) -> anyhow::Result<BTreeSet<&'a str>> {
        for subject in subjects {
            self.client.publish((*subject).to_owned(), "{}".into()).await?;
        }
        self.judged("publish", subjects).await
    }

    /// Tries to subscribe to each subject; gives those that were refused.
    async fn subscribe<'a>(&self, subjects: &[&'a str]) -> anyhow::Result<BTreeSet<&'a str>> {
        let mut subscribers = Vec::new();
        for subject in subjects {
            subscribers.push(self.client.subscribe((*subject).to_owned()).await?);
        }
        self.judged("subscription", subjects).await
    }

    /// A last one that is always refused: whatever was refused before it has been told by then.
    async fn judged<'a>(&self, act: &str, subjects: &[&'a str]) -> anyhow::Result<BTreeSet<&'a str>> {
        let last = format!("forbidden.{:016x}", rand::random::<u64>());
        self.client.publish(last.clone(), "{}".into()).await?;
        eventually(BOUND, "NATS refuses what nobody may do", async || {
            if self.refused("publish", &last) { Ok(()) } else { Err(format!("{:?}", self.refusals)) }
        })
        .await?;
        Ok(subjects.iter().copied().filter(|subject| self.refused(act, subject)).collect())
    }
}

fn all<'a>(subjects: &[&'a str]) -> BTreeSet<&'a str> {
    subjects.iter().copied().collect()
}

/// A deployment on the sample configuration, with the instance that it names.
pub async fn guarded(version: Version) -> anyhow::Result<(Deployment, Replica, TestInstance)> {
    guarded_by(Plan { nats: Some(version), ..Plan::default() }).await
}

/// As [`guarded`], with a plan.
pub async fn guarded_by(plan: Plan) -> anyhow::Result<(Deployment, Replica, TestInstance)> {
    let deployment = Plan { guarded: true, ..plan }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let (operator, owner) = (replica.operator()?, replica.owner()?);
    let instance = TestInstance::named("factory", &operator, &owner, ACCOUNT, Edition::Platinum).await?;
    Ok((deployment, replica, instance))
}

async fn an_agent_works_with_its_rights_on(version: Version) -> anyhow::Result<()> {
    let (deployment, replica, instance) = guarded(version).await?;
    let servers = Ca::root("the broker's CA")?;
    let (leaked, other) = (instance.new_ca().await?, instance.new_ca().await?);
    let broker = Broker::gate(&deployment, &replica, "factory", &servers).await?;
    let device = Device::new("of-the-leaked", &leaked, &servers)?;
    let neighbour = Device::new("of-the-other", &other, &servers)?;
    eventually(BOUND, "the agent leans on NATS", async || {
        let said = broker.agent_said();
        if said.contains("heads come by NATS") { Ok(()) } else { Err(said) }
    })
    .await?;
    let (session, kept) = (device.connect(&broker.address).await?, neighbour.connect(&broker.address).await?);

    let mut request = instance.inactivation(&leaked.sn);
    request.wait = Some(Wait { target: wait::Target::AppliedByAll.into(), timeout: None });
    let reply = instance.caller.ca.clone().inactivate_ca_certificate(request).await?.into_inner();
    let propagation = reply.propagation.unwrap_or_default();
    assert_eq!((propagation.applied, propagation.pending), (1, 0), "{propagation:?}");
    tokio::time::timeout(BOUND, session.closed()).await?;
    assert!(device.connect(&broker.address).await.is_err(), "an inactive CA's device is let in");
    neighbour.connect(&broker.address).await?;
    drop(kept);

    let position = instance.activate(&leaked.sn).await?.position;
    eventually(BOUND, "the device is let in again", async || device.connect(&broker.address).await.map(drop))
        .await?;
    deployment.nats().reaches(position, BOUND).await?;
    let said = [deployment.nats().said(), broker.agent_said(), replica.server.output().text()].concat();
    assert!(!said.to_lowercase().contains("violation"), "somebody lacks a right:\n{said}");
    assert!(!broker.agent_said().contains("leaning on gRPC"), "it came by NATS:\n{}", broker.agent_said());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_works_with_its_rights_on_the_nats_of_debian() -> anyhow::Result<()> {
    an_agent_works_with_its_rights_on(Version::Installed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_works_with_its_rights_on_a_newer_nats() -> anyhow::Result<()> {
    an_agent_works_with_its_rights_on(Version::At(newer_nats()?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_speaks_for_its_broker_and_hears_its_instance_and_no_more() -> anyhow::Result<()> {
    let nats = Nats::start_guarded(Version::Installed).await?;
    let agent = Login::new(&nats, Role::Agent).await?;
    let forbidden = [
        "catrust.v1.receipt.factory.gate-2",
        "catrust.v1.receipt.other.gate-1",
        "catrust.v1.live.factory",
        "catrust.v1.trust.factory.00",
        "catrust.v1.head.factory",
        "catrust.v1.log.factory.InstanceRegistered",
        "catrust.v1.keys",
        "catrust.v1.checkpoint",
        "catrust.v1.internal.spending",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.CATRUST",
        "$JS.API.STREAM.CREATE.CATRUST",
        "$JS.API.STREAM.UPDATE.CATRUST",
        "$JS.API.STREAM.DELETE.CATRUST",
        "$JS.API.STREAM.PURGE.CATRUST",
        "$JS.API.STREAM.MSG.GET.CATRUST",
        "$JS.API.STREAM.MSG.DELETE.CATRUST",
        "$JS.API.DIRECT.GET.CATRUST.catrust.v1.trust.other.00",
        "$JS.API.CONSUMER.CREATE.CATRUST",
        "$JS.API.CONSUMER.DURABLE.CREATE.CATRUST.mine",
        "$JS.API.STREAM.CREATE.MINE",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.catrust.x",
    ];
    assert_eq!(agent.publish(&forbidden).await?, all(&forbidden));
    let forbidden = [
        ">",
        "catrust.>",
        "catrust.v1.trust.>",
        "catrust.v1.trust.*.*",
        "catrust.v1.trust.other.*",
        "catrust.v1.live.*",
        "catrust.v1.live.other",
        "catrust.v1.head.*",
        "catrust.v1.head.other",
        "catrust.v1.log.>",
        "catrust.v1.receipt.>",
        "catrust.v1.receipt.factory.gate-1",
        "catrust.v1.internal.spending",
        "_INBOX.>",
        "$JS.>",
        "$SYS.>",
    ];
    assert_eq!(agent.subscribe(&forbidden).await?, all(&forbidden));
    assert_eq!(agent.publish(&["catrust.v1.receipt.factory.gate-1"]).await?, BTreeSet::new());
    let heard = [
        "catrust.v1.trust.factory.*",
        "catrust.v1.live.factory",
        "catrust.v1.head.factory",
        "catrust.v1.keys",
    ];
    assert_eq!(agent.subscribe(&heard).await?, BTreeSet::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_login_speaks_for_no_broker_and_touches_no_other_stream() -> anyhow::Result<()> {
    let nats = Nats::start_guarded(Version::Installed).await?;
    let server = Login::new(&nats, Role::Server).await?;
    let forbidden = [
        "catrust.v1.receipt.factory.gate-1",
        "$JS.API.STREAM.CREATE.OTHER",
        "$JS.API.STREAM.DELETE.OTHER",
        // Ground rule 14: servers have no right to delete a stream or what is in it.
        "$JS.API.STREAM.DELETE.CATRUST",
        "$JS.API.STREAM.DELETE.CATRUST_2",
        "$JS.API.STREAM.PURGE.CATRUST",
        "$JS.API.STREAM.PURGE.CATRUST_9",
        "$JS.API.STREAM.MSG.DELETE.CATRUST",
        "catrust.v1.archive.1.x",
        "$JS.API.CONSUMER.CREATE.CATRUST",
        "$JS.API.CONSUMER.DURABLE.CREATE.CATRUST.mine",
        "$JS.API.ACCOUNT.PURGE.$G",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.catrust.x",
    ];
    assert_eq!(server.publish(&forbidden).await?, all(&forbidden));
    let forbidden = [">", "catrust.>", "catrust.v1.trust.>", "_INBOX.>", "_INBOX.other.>", "$JS.>", "$SYS.>"];
    assert_eq!(server.subscribe(&forbidden).await?, all(&forbidden));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_reads_the_stream_and_changes_nothing() -> anyhow::Result<()> {
    let (deployment, _replica, instance) = guarded(Version::Installed).await?;
    let ca = instance.new_ca().await?;
    let nats = deployment.nats();
    let position = instance.inactivate(&ca.sn).await?.position;
    nats.reaches(position, BOUND).await?;
    let auditor = Login::new(nats, Role::Auditor).await?;
    let context = async_nats::jetstream::new(auditor.client.clone());
    let stream = context.get_stream("CATRUST").await?;
    let last = stream.get_raw_message(position).await?;
    assert!(last.subject.as_str().starts_with("catrust.v1.trust.factory."), "{}", last.subject);
    let forbidden = [
        "catrust.v1.trust.factory.00",
        "catrust.v1.log.factory.InstanceRegistered",
        "catrust.v1.head.factory",
        "catrust.v1.receipt.factory.gate-1",
        "catrust.v1.internal.spending",
        "catrust.v1.keys",
        "catrust.v1.checkpoint",
        "$JS.API.STREAM.UPDATE.CATRUST",
        "$JS.API.STREAM.DELETE.CATRUST",
        "$JS.API.STREAM.PURGE.CATRUST",
        "$JS.API.STREAM.MSG.DELETE.CATRUST",
        "$JS.API.CONSUMER.CREATE.CATRUST",
    ];
    assert_eq!(auditor.publish(&forbidden).await?, all(&forbidden));
    let forbidden = [">", "catrust.v1.receipt.>", "catrust.v1.internal.>", "_INBOX.>", "_INBOX.other.>"];
    assert_eq!(auditor.subscribe(&forbidden).await?, all(&forbidden));
    nats.reaches(position, BOUND).await
}

/// Ground rule 14: servers never delete a stream, and have no right to; an operator makes room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_removes_a_stream_and_only_one_that_was_set_aside() -> anyhow::Result<()> {
    let (deployment, _replica, instance) = guarded(Version::Installed).await?;
    let ca = instance.new_ca().await?;
    let nats = deployment.nats();
    nats.reaches(instance.inactivate(&ca.sn).await?.position, BOUND).await?;
    let thief = Login::new(nats, Role::Server).await?;
    thief.client.request("catrust.v1.log.forged.InstanceRegistered", "{}".into()).await?;
    let position = instance.activate(&ca.sn).await?.position;
    nats.reaches(position, BOUND).await?;
    let listed = deployment.command(&["stream", "list"]).await?.success()?.stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].contains("CATRUST ") && lines[0].contains("set aside"), "{listed}");
    assert!(lines[1].contains("CATRUST_2 ") && lines[1].contains("in use"), "{listed}");
    let verified = deployment.command(&["verify", "--stream"]).await?.success()?.stdout;
    assert!(
        verified.contains("stream CATRUST:") && verified.contains("with 1 messages that say nothing"),
        "{verified}"
    );
    assert!(verified.contains("stream CATRUST_2:") && verified.contains("clean"), "{verified}");

    let remove = async |number: &str, role| {
        let seed = nats.seed(role).context("a seed")?;
        let seed = seed.to_string_lossy().into_owned();
        deployment.command(&["stream", "remove", number, "--nats-nkey", &seed]).await
    };
    for role in [Role::Server, Role::Auditor] {
        let refused = remove("1", role).await?;
        assert_ne!(refused.code, Some(0), "{role:?}: {}", refused.stdout);
    }
    let refused = remove("2", Role::Operator).await?;
    assert!(refused.code != Some(0) && refused.stderr.contains("in use"), "{}", refused.stderr);
    let removed = remove("1", Role::Operator).await?.success()?;
    assert!(removed.stdout.contains("removed: CATRUST "), "{}", removed.stdout);
    let listed = deployment.command(&["stream", "list"]).await?.success()?.stdout;
    assert!(listed.lines().count() == 1 && listed.contains("CATRUST_2"), "{listed}");
    nats.reaches(position, BOUND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_in_without_a_login() -> anyhow::Result<()> {
    let nats = Nats::start_guarded(Version::Installed).await?;
    for seed in [None, Some(nkeys::KeyPair::new_user().seed()?)] {
        let options = nats.options_with(seed);
        let refused = options.connect(nats.url()).await.err().map(|error| error.to_string().to_lowercase());
        assert!(refused.as_ref().is_some_and(|text| text.contains("authorization")), "{refused:?}");
    }
    Ok(())
}
