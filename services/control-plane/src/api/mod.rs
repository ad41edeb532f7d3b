//! The RPCs of the contract, a file each.
//!
//! A handler parses the request's fields, asks [`Api::admit`] whether the caller
//! may, reads the store or submits a command, and turns the outcome into the
//! response message. It knows no SQL and no NATS. The order of the checks is that
//! of the contract: identity and rate are layers, then fields, instance,
//! permission, owner; edition and certificate are decided under the append lock.

pub(crate) mod audit;
pub(crate) mod ca_certificates;
pub(crate) mod fleet;
pub(crate) mod instances;
pub(crate) mod trust;

mod call;
mod convert;
mod fields;
mod paging;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{Command, CommandEnvelope, InstanceId, Rejection, Reply, Timestamp};
use catrust_event_store::EventStore;
use catrust_proto::v1;
use catrust_trust_feed::InProcessFeed;
use opentelemetry::metrics::UpDownCounter;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::appender::Appender;
use crate::directory::{Directory, InstanceSummary};
use crate::error::ApiError;
use crate::evidence::Evidence;
use crate::fleet::{FleetView, ReceiptIntake, Witness};
use crate::ground::LogGround;
use crate::keys::ServerKeys;
use crate::per_user::{PerUser, UserShare};
use catrust_access::{Action, Authorizer, Circumstances, InstanceResource};

pub(crate) use call::Call;
pub(crate) use fields::{Fields, WaitFor};

/// Rules of the service that are settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceRules {
    pub(crate) certificates_per_instance: u32,
    /// Whether the last wills of sessions that a change cuts are published.
    pub(crate) cut_with_will: bool,
    /// Time between two heads on a watch stream.
    pub(crate) head_interval: Duration,
}

/// What every handler needs.
pub(crate) struct Api {
    /// The log and its read model.
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) appender: Appender,
    /// Whether anything may be changed or signed.
    pub(crate) ground: LogGround,
    /// Whose the instances are.
    pub(crate) directory: Arc<Directory>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// The signed messages, as this replica follows the log.
    pub(crate) feed: InProcessFeed,
    pub(crate) receipts: ReceiptIntake,
    /// What brokers said, to whichever replica.
    pub(crate) fleet: FleetView,
    /// What silence of brokers goes by: the clock of the database.
    pub(crate) fleet_clock: catrust_event_store::Clock,
    /// Hears what brokers show of the log.
    pub(crate) witness: Arc<Witness>,
    /// Signs bundles and heads, and says who vouches for that.
    pub(crate) keys: Arc<ServerKeys>,
    pub(crate) evidence: Arc<Evidence>,
    /// Open `WatchTrust` streams.
    pub(crate) watchers: UpDownCounter<i64>,
    pub(crate) rules: ServiceRules,
    pub(crate) clock: catrust_event_store::Clock,
    /// Places of calls that load old bundles.
    pub(crate) old_bundles: Semaphore,
    /// Open watch streams, by user.
    pub(crate) streams: PerUser,
    /// Ends watch streams, and waiting for brokers, when the server drains.
    pub(crate) draining: CancellationToken,
}

impl Api {
    /// The time by the clock of the database: what replicas and brokers are told goes by it.
    fn now(&self) -> Timestamp {
        (self.fleet_clock)()
    }

    /// Checks, in this order: the instance exists, policy allows `action` and what
    /// it depends on, the caller's account owns the instance. Gives the version of the
    /// policies that allowed it.
    async fn admit(&self, call: &Call, id: &InstanceId, action: Action) -> Result<Arc<str>, ApiError> {
        call.names(id);
        let instance = self.find_instance(id).await?;
        let policy_version = self.authorize_on(call, &instance, action)?;
        let own = |instance: &InstanceSummary| instance.owner_account_id == call.identity.account_id;
        // The directory may lag a change of the owner: only the store's word refuses.
        if own(&instance) || own(&self.load_instance(id).await?) {
            Ok(policy_version)
        } else {
            Err(Rejection::NotOwner.into())
        }
    }

    fn authorize_on(
        &self,
        call: &Call,
        instance: &InstanceSummary,
        action: Action,
    ) -> Result<Arc<str>, ApiError> {
        let resource = InstanceResource {
            region_id: Some(&instance.region_id),
            account_id: Some(&instance.owner_account_id),
            instance_id: Some(&instance.instance_id),
        };
        self.authorize(call, action, &resource)
    }

    /// Checks that a broker's identity asks for its own, and that policy allows `action`, and
    /// the action that it depends on.
    fn authorize(
        &self,
        call: &Call,
        action: Action,
        resource: &InstanceResource<'_>,
    ) -> Result<Arc<str>, ApiError> {
        if let Some(broker) = &call.identity.broker
            && !broker.covers(action, resource.instance_id, call.broker_id.as_ref())
        {
            let (principal, action) = (&*call.identity.principal, action.name());
            tracing::info!(principal, action, %resource, broker = %broker.broker_id, "more than a broker's own");
            return Err(ApiError::BoundToBroker { action });
        }
        let circumstances = Circumstances { source_address: call.source_address, now: self.now() };
        self.authorizer.authorize(&call.identity, action, resource, &circumstances).map_err(|denied| {
            let (principal, action) = (&*call.identity.principal, denied.action.name());
            tracing::info!(principal, action, %resource, reason = denied.reason, "permission denied");
            ApiError::PermissionDenied { action }
        })
    }

    async fn find_instance(&self, id: &InstanceId) -> Result<InstanceSummary, ApiError> {
        match self.directory.find(id) {
            Some(known) => Ok(known),
            None => self.load_instance(id).await,
        }
    }

    async fn load_instance(&self, id: &InstanceId) -> Result<InstanceSummary, ApiError> {
        let instance = self.store.find_instance(id).await?.ok_or(Rejection::InstanceNotFound)?;
        self.directory.insert(&instance);
        Ok(InstanceSummary::from(&instance))
    }

    /// Takes one of the streams that a user may have open; to be kept as long as the stream.
    fn take_stream(&self, call: &Call) -> Result<UserShare, ApiError> {
        let user = &call.identity.principal;
        let too_many = || ApiError::TooManyStreams { most: self.streams.most(), user: user.to_string() };
        self.streams.take(user).ok_or_else(too_many)
    }

    /// Commits a command of an admitted caller.
    async fn submit(
        &self,
        call: &Call,
        instance_id: InstanceId,
        command: Command,
        policy_version: &str,
    ) -> Result<Reply, ApiError> {
        self.ground.check()?;
        let context = call.command_context(Uuid::new_v4(), policy_version);
        self.appender.submit(CommandEnvelope { instance_id, command, context }).await
    }

    /// Waits for the brokers to apply a revision that is committed, where the caller
    /// asked for it.
    ///
    /// # Errors
    /// The log was set back meanwhile: what was committed may be lost.
    async fn wait(
        &self,
        call: &Call,
        id: &InstanceId,
        revision: u64,
        wait: Option<WaitFor>,
    ) -> Result<Option<v1::Propagation>, ApiError> {
        let Some(WaitFor { target, timeout }) = wait else { return Ok(None) };
        let until = call.wait_until(timeout);
        tokio::select! {
            error = self.ground.lost() => Err(error),
            found = self.fleet.wait(id, revision, target, until, &self.draining) => {
                Ok(found.map(|found| convert::propagation(id, &found)))
            }
        }
    }
}
