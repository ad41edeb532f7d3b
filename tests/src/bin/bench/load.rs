//! Callers through gRPC.

use std::time::{Duration, Instant};

use catrust_proto::v1::{GetCaCertificateRequest, ListCaCertificatesRequest};
use catrust_tests::certificates::request_id;
use catrust_tests::client::Caller;
use catrust_tests::deployment::Replica;
use catrust_tests::instance::TestInstance;
use tonic_health::pb::HealthCheckRequest;

use crate::latencies;
use crate::reading::Latencies;

/// Connections that the callers share.
pub const CONNECTIONS: usize = 4;

/// Turns one certificate off and on, each time with a request id, as a caller that
/// may have to repeat does.
pub struct Flipper {
    instance: TestInstance,
    sn: String,
    off: bool,
}

impl Flipper {
    /// Of the only certificate of `instance`.
    pub fn new(instance: &TestInstance) -> Self {
        Self { instance: instance.clone(), sn: String::new(), off: false }
    }

    async fn prepare(&mut self) -> anyhow::Result<()> {
        let request =
            ListCaCertificatesRequest { mqtt_instance_id: self.instance.id.clone(), ..Default::default() };
        let page = self.instance.caller.ca.clone().list_ca_certificates(request).await?.into_inner();
        let certificate = &page.ca_certificates[0];
        self.sn.clone_from(&certificate.sn);
        self.off = certificate.state() == catrust_proto::v1::CaCertificateState::Inactive;
        Ok(())
    }

    async fn flip(&mut self) -> anyhow::Result<()> {
        self.off = !self.off;
        let mut client = self.instance.caller.ca.clone();
        let changed = if self.off {
            let mut request = self.instance.inactivation(&self.sn);
            request.request_id = request_id();
            client.inactivate_ca_certificate(request).await?.into_inner().changed
        } else {
            let mut request = self.instance.activation(&self.sn);
            request.request_id = request_id();
            client.activate_ca_certificate(request).await?.into_inner().changed
        };
        anyhow::ensure!(changed, "somebody else changes {}", self.sn);
        Ok(())
    }

    async fn run(mut self, length: Duration) -> anyhow::Result<Vec<Duration>> {
        let started = Instant::now();
        let mut durations = Vec::new();
        while started.elapsed() < length {
            let begun = Instant::now();
            self.flip().await?;
            durations.push(begun.elapsed());
        }
        Ok(durations)
    }
}

/// One caller in a row.
pub async fn one_caller(instance: &TestInstance, length: Duration) -> anyhow::Result<Latencies> {
    let mut flipper = Flipper::new(instance);
    flipper.prepare().await?;
    for _ in 0..200 {
        flipper.flip().await?;
    }
    Ok(latencies(flipper.run(length).await?))
}

/// All callers at once; gives commands per second and their latencies.
pub async fn all_callers(mut flippers: Vec<Flipper>, length: Duration) -> anyhow::Result<(f64, Latencies)> {
    for flipper in &mut flippers {
        flipper.prepare().await?;
    }
    let started = Instant::now();
    let tasks: Vec<_> = flippers.into_iter().map(|flipper| tokio::spawn(flipper.run(length))).collect();
    let mut durations = Vec::new();
    for outcome in futures::future::join_all(tasks).await {
        durations.extend(outcome??);
    }
    let per_second = durations.len() as f64 / started.elapsed().as_secs_f64();
    Ok((per_second, latencies(durations)))
}

/// Health checks per second: the emptiest call of the server.
pub async fn health_checks(replica: &Replica, callers: usize, length: Duration) -> anyhow::Result<f64> {
    let connections: Vec<Caller> = (0..CONNECTIONS).map(|_| replica.owner()).collect::<Result<_, _>>()?;
    rate(callers, length, async |index| {
        let mut health = connections[index % CONNECTIONS].health.clone();
        health.check(HealthCheckRequest::default()).await?;
        Ok(())
    })
    .await
}

/// `GetCaCertificate` per second.
pub async fn reads(instances: &[TestInstance], length: Duration) -> anyhow::Result<f64> {
    let mut names = Vec::new();
    for instance in instances {
        let mut flipper = Flipper::new(instance);
        flipper.prepare().await?;
        names.push(flipper.sn);
    }
    rate(instances.len(), length, async |index| {
        let instance = &instances[index];
        let request =
            GetCaCertificateRequest { mqtt_instance_id: instance.id.clone(), sn: names[index].clone() };
        instance.caller.ca.clone().get_ca_certificate(request).await?;
        Ok(())
    })
    .await
}

/// Runs `call` in a row for each of `callers`, all at once on one task each.
async fn rate(
    callers: usize,
    length: Duration,
    call: impl AsyncFn(usize) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    let rows = (0..callers).map(|index| {
        let call = &call;
        async move {
            let mut calls = 0_u32;
            while started.elapsed() < length {
                call(index).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        }
    });
    let calls: u32 = futures::future::try_join_all(rows).await?.into_iter().sum();
    Ok(f64::from(calls) / started.elapsed().as_secs_f64())
}
