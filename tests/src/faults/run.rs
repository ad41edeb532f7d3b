//! One run: a site with two replicas and a gate, callers and devices, faults in turn, and the
//! verdict.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::{CaCertificateState, ListBrokersRequest};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use sqlx::Row as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::checker::{LoggedChange, violations};
use super::fault::Fault;
use super::history::{Answer, Asked, History, Probe, Question, SeenReceipt};
use crate::broker::{Broker, Device};
use crate::certificates::{Ca, request_id};
use crate::client::{Caller, Refusal};
use crate::deployment::{Deployment, OWNER, Plan, Replica};
use crate::eventually::eventually;
use crate::instance::TestInstance;
use crate::postgres::Durability;
use crate::process::Signal;
use crate::program::{free_port, target_directory};
use crate::proxy::Proxy;
use crate::server::Server;

/// Replicas.
const REPLICAS: usize = 2;
/// Callers that switch CAs and look at them.
const CALLERS: usize = 6;
/// CAs that are switched; one more never is.
const SWITCHED: usize = 4;
/// How long one attempt of a call may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Attempts of one question, all with its request id.
const ATTEMPTS: usize = 12;
/// How long everything may take to be well again once nothing is wrong any more.
const HEALING: Duration = Duration::from_secs(30);

/// What one run is.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// Decides what happens.
    pub seed: u64,
    /// How long callers call and faults come.
    pub length: Duration,
    /// Faults to draw from.
    pub faults: Vec<Fault>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// What cannot be true; empty where all is well.
    pub violations: Vec<String>,
    /// Counts, for people.
    pub summary: String,
    /// Where the history is.
    pub traces: PathBuf,
}

/// The servers of a run.
pub struct Site {
    /// Database, NATS and settings.
    pub deployment: Deployment,
    /// What is seen.
    pub history: History,
    /// The way of each replica to the database.
    pub to_database: Vec<Proxy>,
    /// The way of each replica to NATS.
    pub to_wire: Vec<Proxy>,
    servers: Vec<Option<Server>>,
    ports: Vec<u16>,
    /// The replicas as callers know them; one that is down stays in the list.
    callers: Arc<RwLock<Vec<Caller>>>,
}

impl Site {
    async fn start(history: History) -> anyhow::Result<Self> {
        let deployment = Plan { durability: Durability::Full, ..Plan::default() }.deploy().await?;
        let (database, wire) = (deployment.postgres.port(), deployment.nats().port());
        let mut site = Self {
            deployment,
            history,
            to_database: Vec::new(),
            to_wire: Vec::new(),
            servers: Vec::new(),
            ports: Vec::new(),
            callers: Arc::default(),
        };
        for replica in 0..REPLICAS {
            site.to_database.push(Proxy::start(database).await?);
            site.to_wire.push(Proxy::start(wire).await?);
            site.ports.push(free_port()?);
            site.servers.push(None);
            site.start_server(replica).await?;
        }
        Ok(site)
    }

    /// Number of replicas.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.servers.len()
    }

    /// Kills a replica with -9.
    pub fn kill_server(&mut self, replica: usize) {
        if let Some(server) = self.servers[replica].take() {
            server.kill();
        }
    }

    /// Sends a replica a signal.
    pub fn signal_server(&self, replica: usize, signal: Signal) {
        if let Some(server) = &self.servers[replica] {
            server.signal(signal);
        }
    }

    /// Starts a replica, where it was before.
    ///
    /// # Errors
    /// When it does not come up within the bound.
    pub async fn start_server(&mut self, replica: usize) -> anyhow::Result<()> {
        let (config, _) = self.deployment.configuration(&format!("replica-{replica}"))?;
        let at = |port: u16| format!("127.0.0.1:{port}");
        let text = std::fs::read_to_string(&config)?
            .replacen("listen = \"127.0.0.1:0\"", &format!("listen = {:?}", at(self.ports[replica])), 1)
            .replace(&at(self.deployment.postgres.port()), &at(self.to_database[replica].port()))
            .replace(&at(self.deployment.nats().port()), &at(self.to_wire[replica].port()));
        std::fs::write(&config, text)?;
        // A database that is coming back refuses for a moment, and with it a server that starts.
        let server = eventually(HEALING, "the replica starts", async || {
            Server::serve(&format!("replica {replica}"), &config).await.map_err(|error| format!("{error:#}"))
        })
        .await?;
        let caller = server.caller(Some(OWNER))?;
        let mut callers = self.callers.write().unwrap_or_else(PoisonError::into_inner);
        if replica < callers.len() {
            callers[replica] = caller;
        } else {
            callers.push(caller);
        }
        self.servers[replica] = Some(server);
        Ok(())
    }
}

/// Runs to the end.
///
/// # Errors
/// When the site itself does not come up, or does not come up again: that is no verdict.
pub async fn run(plan: RunPlan) -> anyhow::Result<RunReport> {
    let traces = target_directory()?.join("faults").join(plan.seed.to_string());
    let history = History::default();
    let mut draw = StdRng::seed_from_u64(plan.seed);
    let mut site = Site::start(history.clone()).await?;
    let Some(server) = site.servers[0].take() else { anyhow::bail!("the first replica has not started") };
    let first = Replica { server, admin: String::new() };
    let instance = first.instance().await?;
    let mut cas = Vec::new();
    for _ in 0..=SWITCHED {
        cas.push(instance.new_ca().await?);
    }
    let servers = Ca::root("servers")?;
    let other = format!("http://127.0.0.1:{}", site.ports[1]);
    site.deployment.agent_arguments.extend(["--server".to_owned(), other]);
    let gate = Broker::gate(&site.deployment, &first, &instance.id, &servers).await?;
    site.servers[0] = Some(first.server);
    let bystander = Device::new("bystander", &cas[SWITCHED], &servers)?;
    let session = eventually(HEALING, "the bystander is let in", async || {
        bystander.connect(&gate.address).await.map_err(|error| format!("{error:#}"))
    })
    .await?;
    let untouched = tokio::spawn(session.closed());

    let until = Instant::now() + plan.length;
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let callers = Arc::clone(&site.callers);
        let draw = StdRng::seed_from_u64(plan.seed.wrapping_add(1 + number as u64));
        let sns = cas.iter().take(SWITCHED).map(|ca| ca.sn.clone()).collect();
        tasks.spawn(call(history.clone(), callers, instance.id.clone(), sns, draw, until));
    }
    for ca in cas.iter().take(SWITCHED) {
        let device = Device::new("probe", ca, &servers)?;
        tasks.spawn(probe(history.clone(), gate.address.clone(), ca.sn.clone(), device, until));
    }
    tasks.spawn(watch_receipts(history.clone(), Arc::clone(&site.callers), instance.id.clone(), until));

    while Instant::now() < until {
        sleep(Duration::from_millis(draw.random_range(300..2_000))).await;
        let fault = *plan.faults.choose(&mut draw).context("no fault to draw from")?;
        fault
            .happen(&mut site, &mut draw)
            .await
            .with_context(|| format!("after {fault:?}; seed {}", plan.seed))?;
    }
    tasks.join_all().await;

    let log = logged(&site.deployment, &instance.id).await?;
    let mut events = history.events();
    // The registrations were not asked for by a caller of the history.
    let mut found = violations(&events, &log);
    found.extend(
        heals(&site, &gate, &instance.id, &log, &cas, &servers).await.err().map(|error| format!("{error:#}")),
    );
    if untouched.is_finished() {
        found.push("a session of a CA that nobody switched was ended".to_owned());
    }
    found.extend(verified(&site.deployment).await.err().map(|error| format!("{error:#}")));
    events.faults.sort();
    events.write(&traces)?;
    if !found.is_empty() {
        std::fs::write(traces.join("gate.log"), gate.agent_said())?;
        for (replica, server) in site.servers.iter().enumerate() {
            let said = server.as_ref().map(|server| server.output().text()).unwrap_or_default();
            std::fs::write(traces.join(format!("replica-{replica}.log")), said)?;
        }
        std::fs::write(
            traces.join("log.txt"),
            log.iter().map(|change| format!("{change:?}\n")).collect::<String>(),
        )?;
    }
    let of = |wanted: fn(&Answer) -> bool| events.calls.iter().filter(|call| wanted(&call.answer)).count();
    let summary = format!(
        "seed {}: {} faults; calls: {} changes acknowledged, {} reads, {} refused, {} unknown; {} devices at the \
         gate, {} let in; {} receipts; {} changes in the log; {} violations",
        plan.seed,
        events.faults.iter().filter(|(_, what)| !what.ends_with("mended")).count(),
        of(|answer| matches!(answer, Answer::Acknowledged { .. })),
        of(|answer| matches!(answer, Answer::State { .. })),
        of(|answer| matches!(answer, Answer::Refused(_))),
        of(|answer| matches!(answer, Answer::Unknown(_))),
        events.probes.len(),
        events.probes.iter().filter(|probe| probe.admitted).count(),
        events.receipts.len(),
        log.len(),
        found.len(),
    );
    Ok(RunReport { violations: found, summary, traces })
}

/// One caller: draws a CA and a question, asks it until it is answered, and notes both.
async fn call(
    history: History,
    callers: Arc<RwLock<Vec<Caller>>>,
    instance: String,
    sns: Vec<String>,
    mut draw: StdRng,
    until: Instant,
) {
    while Instant::now() < until {
        let Some(sn) = sns.choose(&mut draw).cloned() else { return };
        let question = match draw.random_range(0..10) {
            0..3 => Question::Inactivate,
            3..6 => Question::Activate,
            _ => Question::Get,
        };
        let id = if question == Question::Get { String::new() } else { request_id() };
        let asked = history.now();
        let mut answer = Answer::Unknown("not asked".to_owned());
        for _ in 0..ATTEMPTS {
            let caller = callers.read().unwrap_or_else(PoisonError::into_inner).choose(&mut draw).cloned();
            let Some(caller) = caller else { return };
            let instance = TestInstance { caller, id: instance.clone() };
            let attempt = timeout(ATTEMPT, ask(&instance, question, &sn, &id)).await;
            answer = attempt.unwrap_or_else(|_| Answer::Unknown("no answer".to_owned()));
            if !matches!(answer, Answer::Unknown(_)) {
                break;
            }
            sleep(Duration::from_millis(draw.random_range(20..200))).await;
        }
        let answered = history.now();
        let asked = Asked { sn, question, request_id: id, asked, answered, answer };
        history.note(|events| events.calls.push(asked));
        sleep(Duration::from_millis(draw.random_range(0..20))).await;
    }
}

async fn ask(instance: &TestInstance, question: Question, sn: &str, id: &str) -> Answer {
    let (mut client, acknowledged) =
        (instance.caller.ca.clone(), |position, changed| Answer::Acknowledged { position, changed });
    let answer = match question {
        Question::Inactivate => {
            let mut request = instance.inactivation(sn);
            request.request_id = id.to_owned();
            let reply = client.inactivate_ca_certificate(request).await.map(tonic::Response::into_inner);
            reply.map(|reply| acknowledged(reply.position, reply.changed))
        }
        Question::Activate => {
            let mut request = instance.activation(sn);
            request.request_id = id.to_owned();
            let reply = client.activate_ca_certificate(request).await.map(tonic::Response::into_inner);
            reply.map(|reply| acknowledged(reply.position, reply.changed))
        }
        Question::Get => instance.get(sn).await.map(|ca| Answer::State {
            revision: ca.revision,
            active: ca.state() == CaCertificateState::Active,
        }),
    };
    answer.unwrap_or_else(|status| refusal(&status))
}

/// What a status says of the effect: only what the contract calls a refusal is one.
fn refusal(status: &Status) -> Answer {
    let name = Refusal::of(status).map_or_else(|_| format!("{:?}", status.code()), |refusal| refusal.code);
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound | Code::PermissionDenied => {
            Answer::Refused(name)
        }
        _ => Answer::Unknown(name),
    }
}

/// One CA's device, again and again.
async fn probe(history: History, address: String, sn: String, device: Device, until: Instant) {
    while Instant::now() < until {
        let asked = history.now();
        let outcome = timeout(ATTEMPT, device.connect(&address)).await;
        let admitted = matches!(outcome, Ok(Ok(_)));
        let probe = Probe { sn: sn.clone(), asked, answered: history.now(), admitted };
        history.note(|events| events.probes.push(probe));
        sleep(Duration::from_millis(15)).await;
    }
}

/// An operator who looks which revision the gate says it enforces.
async fn watch_receipts(
    history: History,
    callers: Arc<RwLock<Vec<Caller>>>,
    instance: String,
    until: Instant,
) {
    let mut turn = 0;
    while Instant::now() < until {
        turn += 1;
        let caller = {
            let callers = callers.read().unwrap_or_else(PoisonError::into_inner);
            callers.get(turn % callers.len().max(1)).cloned()
        };
        if let Some(caller) = caller
            && let Ok(Ok(Some(revision))) = timeout(ATTEMPT, applied(&caller, &instance)).await
        {
            let receipt = SeenReceipt { revision, seen: history.now() };
            history.note(|events| events.receipts.push(receipt));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Revision that the gate has applied, by its receipts.
async fn applied(caller: &Caller, instance: &str) -> Result<Option<u64>, Status> {
    let request = ListBrokersRequest { mqtt_instance_id: instance.to_owned() };
    let brokers = caller.fleet.clone().list_brokers(request).await?.into_inner().brokers;
    Ok(brokers.first().map(|broker| broker.applied_revision))
}

/// The trust changes of the instance, as the database has them at the end.
async fn logged(deployment: &Deployment, instance: &str) -> anyhow::Result<Vec<LoggedChange>> {
    let rows = eventually(HEALING, "the log can be read", async || {
        let mut database = deployment.database().await?;
        let rows = sqlx::query(
            "SELECT position, sn, revision, event_type, request_id::text FROM events \
             WHERE instance_id = $1 AND revision IS NOT NULL ORDER BY position",
        );
        anyhow::Ok(rows.bind(instance).fetch_all(&mut database).await?)
    })
    .await?;
    let change = |row: &sqlx::postgres::PgRow| {
        let event_type: String = row.try_get(3)?;
        anyhow::Ok(LoggedChange {
            position: u64::try_from(row.try_get::<i64, _>(0)?)?,
            sn: row.try_get(1)?,
            revision: u64::try_from(row.try_get::<i64, _>(2)?)?,
            active: event_type == "CaCertificateRegistered" || event_type == "CaCertificateActivated",
            request_id: row.try_get(4)?,
        })
    };
    rows.iter().map(change).collect()
}

/// Once nothing is wrong any more, the gate enforces the newest revision, and lets in whom it
/// should and nobody else.
async fn heals(
    site: &Site,
    gate: &Broker,
    instance: &str,
    log: &[LoggedChange],
    cas: &[Ca],
    servers: &Ca,
) -> anyhow::Result<()> {
    let newest = log.last().map_or(0, |change| change.revision);
    let callers = site.callers.read().unwrap_or_else(PoisonError::into_inner).clone();
    for (replica, caller) in callers.iter().enumerate() {
        eventually(HEALING, &format!("replica {replica} tells that the gate applied {newest}"), async || {
            match applied(caller, instance).await {
                Ok(Some(revision)) if revision == newest => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
    }
    for ca in cas {
        let active = log.iter().rev().find(|change| change.sn == ca.sn).is_some_and(|change| change.active);
        let admitted = Device::new("last", ca, servers)?.connect(&gate.address).await.is_ok();
        anyhow::ensure!(
            admitted == active,
            "in the end {} is active: {active}, and let in: {admitted}",
            ca.sn
        );
    }
    Ok(())
}

/// The log and its stream are sound.
async fn verified(deployment: &Deployment) -> anyhow::Result<()> {
    let head: i64 = {
        let mut database = deployment.database().await?;
        sqlx::query("SELECT max(position) FROM events").fetch_one(&mut database).await?.try_get(0)?
    };
    deployment.nats().reaches(u64::try_from(head)?, HEALING).await?;
    deployment.command(&["verify", "--stream"]).await?.success()?;
    Ok(())
}
