//! What the layers found out about a call, and how its reply is finished.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{BrokerId, CommandContext, InstanceId, Sha256};
use prost::Message;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::error::{ApiError, to_status};
use crate::middleware::deadline::{Deadline, DefaultDeadline};
use crate::middleware::identity::SourceAddress;
use crate::middleware::request_id::RequestId;
use crate::middleware::trace_context::TraceParent;
use crate::refusals::CallFacts;
use catrust_access::Identity;

/// What is kept of a deadline so that the reply still gets out.
const TIME_TO_REPLY: Duration = Duration::from_millis(20);

/// One call, as its handler sees it.
#[derive(Clone)]
pub(crate) struct Call {
    /// The name that the reply carries: the layer's, or the caller's idempotency key.
    pub(crate) request_id: Uuid,
    /// Hash of the request where the caller chose the idempotency key.
    pub(crate) fingerprint: Option<Sha256>,
    pub(crate) identity: Identity,
    /// The broker that the call is made for or by, where its request names one.
    pub(crate) broker_id: Option<BrokerId>,
    /// When the caller stops waiting, where it said so.
    pub(crate) deadline: Option<Instant>,
    /// Where the call comes from. IPv4-mapped IPv6 addresses, as a dual-stack listener sees
    /// them, are IPv4 here.
    pub(crate) source_address: Option<IpAddr>,
    default_deadline: Option<DefaultDeadline>,
    traceparent: String,
    facts: Option<Arc<CallFacts>>,
}

impl Call {
    /// Takes what the layers left in the extensions.
    ///
    /// # Errors
    /// INTERNAL when the identity layer is missing: no identity, no service.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Box<Status>> {
        let extensions = request.extensions();
        let request_id = extensions.get::<RequestId>().map_or_else(Uuid::new_v4, |id| id.0);
        let Some(identity) = extensions.get::<Identity>() else {
            let error = ApiError::Internal("a service sits outside the identity layer".to_owned());
            return Err(Box::new(to_status(&error, request_id)));
        };
        Ok(Self {
            request_id,
            fingerprint: None,
            identity: identity.clone(),
            broker_id: None,
            deadline: extensions.get::<Deadline>().map(|deadline| deadline.0),
            default_deadline: extensions.get::<DefaultDeadline>().cloned(),
            source_address: extensions.get::<SourceAddress>().map(|a| a.0.ip().to_canonical()),
            traceparent: extensions.get::<TraceParent>().map(|t| t.0.clone()).unwrap_or_default(),
            facts: extensions.get::<Arc<CallFacts>>().cloned(),
        })
    }

    /// Notes which instance the call names, for whoever has to tell of its refusal.
    pub(crate) fn names(&self, id: &InstanceId) {
        if let Some(facts) = &self.facts {
            // The first one counts: no call names two.
            let _ = facts.instance_id.set(id.clone());
        }
    }

    /// Takes the caller's idempotency key. `request` is the message without it, so
    /// that the fingerprint is that of what is asked.
    pub(crate) fn identify_by(&mut self, key: Option<Uuid>, method: &'static str, request: &impl Message) {
        if let Some(key) = key {
            self.request_id = key;
            let canonical = [method.as_bytes(), &[0], &request.encode_to_vec()].concat();
            self.fingerprint = Some(Sha256::of(&canonical));
        }
    }

    /// How long the call may wait, `timeout` at most. What is left of the caller's own
    /// deadline bounds it; the server's default makes way.
    pub(crate) fn wait_until(&self, timeout: Duration) -> Instant {
        let until = Instant::now() + timeout;
        if let Some(default) = &self.default_deadline {
            default.extend_to(until + TIME_TO_REPLY);
        }
        self.deadline.and_then(|deadline| deadline.checked_sub(TIME_TO_REPLY)).map_or(until, |d| d.min(until))
    }

    /// The context of a command of this call.
    pub(crate) fn command_context(&self, event_id: Uuid, policy_version: &str) -> CommandContext {
        CommandContext {
            event_id,
            request_id: self.request_id,
            fingerprint: self.fingerprint,
            actor: self.identity.principal.to_string(),
            account_id: self.identity.account_id.clone(),
            policy_version: policy_version.to_owned(),
            source_address: self.source_address.map(|address| address.to_string()).unwrap_or_default(),
            traceparent: self.traceparent.clone(),
        }
    }

    /// The reply, under the call's name.
    pub(crate) fn finish<T>(&self, outcome: Result<T, ApiError>) -> Result<Response<T>, Status> {
        let header = MetadataValue::<Ascii>::try_from(self.request_id.to_string()).ok();
        match outcome {
            Ok(message) => {
                let mut response = Response::new(message);
                if let Some(header) = header {
                    response.metadata_mut().insert("x-request-id", header);
                }
                Ok(response)
            }
            Err(error) => {
                let mut status = to_status(&error, self.request_id);
                if let Some(header) = header {
                    status.metadata_mut().insert("x-request-id", header);
                }
                Err(status)
            }
        }
    }
}

/// Runs a handler: `answer!(api, request, module::handle)`.
macro_rules! answer {
    ($api:expr, $request:expr, $handler:path) => {{
        let mut call = crate::api::Call::of(&$request).map_err(|status| *status)?;
        let outcome = $handler($api, &mut call, $request.into_inner()).await;
        call.finish(outcome)
    }};
}
pub(crate) use answer;
