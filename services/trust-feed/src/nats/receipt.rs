//! Sending receipts: core NATS, so that one may be lost; the sender repeats it as its
//! sign of life.

use async_nats::HeaderMap;
use catrust_domain::{BrokerId, InstanceId};
use catrust_proto::v1::ReportReceiptRequest;

use super::{NatsFeed, wire};
use crate::feed::FeedError;
use crate::subject;

impl NatsFeed {
    /// Sends a receipt, as ProtoJSON, to whoever listens now. `traceparent` goes into
    /// a header where it is one.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`] while there is no connection. Returns before the server
    /// has the receipt.
    pub async fn publish_receipt(
        &self,
        receipt: &ReportReceiptRequest,
        traceparent: &str,
    ) -> Result<(), FeedError> {
        self.check_connected()?;
        let instance_id: InstanceId = receipt.mqtt_instance_id.parse().map_err(FeedError::unavailable)?;
        let broker_id: BrokerId = receipt.broker_id.parse().map_err(FeedError::unavailable)?;
        let json = serde_json::to_vec(receipt).map_err(FeedError::unavailable)?;
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json");
        if wire::is_traceparent(traceparent) {
            headers.insert("traceparent", traceparent);
        }
        self.client
            .publish_with_headers(subject::receipt(&instance_id, &broker_id), headers, json.into())
            .await
            .map_err(FeedError::unavailable)
    }
}
