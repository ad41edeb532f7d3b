//! What the three changes of a certificate's state have in common.

use catrust_domain::{Command, InstanceId, Reply, SerialNumber};
use catrust_proto::v1;
use uuid::Uuid;

use crate::api::{Api, Call, Fields, WaitFor};
use crate::error::ApiError;
use catrust_access::Action;

/// The parsed fields of a request that changes a state.
pub(super) struct StateChange {
    instance_id: InstanceId,
    sn: SerialNumber,
    reason: String,
    wait: Option<WaitFor>,
    /// The caller's idempotency key.
    pub(crate) key: Option<Uuid>,
}

impl StateChange {
    /// `wait` and `request_id` MUST have been taken out of the request: they are not part of its
    /// identity, so that a retry with the same id may wait longer.
    pub(crate) fn parse(
        fields: &mut Fields,
        (instance_id, sn, reason): (&str, &str, &str),
        wait: Option<&v1::Wait>,
        request_id: &str,
    ) -> Option<Self> {
        let instance_id = fields.instance_id(instance_id);
        let sn = fields.sn(sn);
        let reason = fields.reason(reason.to_owned());
        let wait = fields.wait(wait);
        let key = fields.request_id(request_id);
        Some(Self { instance_id: instance_id?, sn: sn?, reason: reason?, wait: wait?, key: key? })
    }

    /// Admits the caller to `action`, commits the command, and waits for the brokers where the
    /// caller asked for it.
    pub(crate) async fn commit(
        self,
        api: &Api,
        call: &Call,
        action: Action,
        command: impl FnOnce(SerialNumber, String) -> Command,
    ) -> Result<(Reply, Option<v1::Propagation>), ApiError> {
        let policy_version = api.admit(call, &self.instance_id, action).await?;
        let command = command(self.sn, self.reason);
        let reply = api.submit(call, self.instance_id.clone(), command, &policy_version).await?;
        let propagation = api.wait(call, &self.instance_id, reply.revision, self.wait).await?;
        Ok((reply, propagation))
    }
}
