//! `ReportReceipt`.

use catrust_proto::v1;

use crate::api::{Api, Call};
use crate::error::ApiError;
use crate::fleet::{ReceiptVia, Shown, statement};
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    mut request: v1::ReportReceiptRequest,
) -> Result<v1::ReportReceiptResponse, ApiError> {
    let (head, bundle) = (request.newest_head.take(), request.newest_bundle.take());
    let receipt = statement::receipt(request, (api.fleet_clock)()).map_err(|violations| {
        api.receipts.refuse(ReceiptVia::Grpc);
        ApiError::Fields(violations)
    })?;
    call.broker_id = Some(receipt.broker_id.clone());
    api.admit(call, &receipt.instance_id, Action::ReportReceipt).await?;
    let mut send_bundle = false;
    let shown = head.iter().map(Shown::Head).chain(bundle.iter().map(Shown::Bundle));
    for shown in shown {
        send_bundle = api.witness.hear(&receipt.instance_id, receipt.broker_id.as_str(), shown).await;
    }
    api.receipts.record(receipt).await?;
    Ok(v1::ReportReceiptResponse { request_id: call.request_id.to_string(), send_bundle })
}
