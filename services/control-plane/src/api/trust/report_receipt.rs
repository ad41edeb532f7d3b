//! `ReportReceipt`.

use catrust_proto::v1;

use crate::api::{Api, Call};
use crate::error::ApiError;
use crate::fleet::{ReceiptVia, statement};
use catrust_access::Action;

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ReportReceiptRequest,
) -> Result<v1::ReportReceiptResponse, ApiError> {
    let receipt = statement::receipt(request, api.now()).map_err(|violations| {
        api.receipts.refuse(ReceiptVia::Grpc);
        ApiError::Fields(violations)
    })?;
    call.broker_id = Some(receipt.broker_id.clone());
    api.admit(call, &receipt.instance_id, Action::ReportReceipt).await?;
    api.receipts.record(receipt).await?;
    Ok(v1::ReportReceiptResponse { request_id: call.request_id.to_string() })
}
