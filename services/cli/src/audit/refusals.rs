//! `catrust audit refusals`.

use catrust_proto::v1 as proto;
use clap::Args;

use crate::api_client::ApiClient;
use crate::failure::Failure;
use crate::output::{Printer, table};
use crate::spelling;

#[derive(Debug, Args)]
pub(crate) struct RefusalsArguments {
    /// Account whose callers were refused; everybody, for operators, otherwise.
    #[arg(long)]
    account: Option<String>,
    /// Only this principal.
    #[arg(long)]
    actor: Option<String>,
    /// Only this code, for example PermissionCheckFailed.
    #[arg(long)]
    code: Option<String>,
    /// Stop after this many, the newest first.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub(super) async fn run(
    arguments: RefusalsArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let limit = arguments.limit as usize;
    let mut request = proto::ListRefusalsRequest {
        account_id: arguments.account.unwrap_or_default(),
        actor: arguments.actor.unwrap_or_default(),
        code: arguments.code.unwrap_or_default(),
        page_size: 100,
        page_token: String::new(),
    };
    let mut all = proto::ListRefusalsResponse::default();
    let mut client = api.audit();
    loop {
        let message = request.clone();
        let page = api.call(message, async |request| client.list_refusals(request).await).await?;
        all.refusals.extend(page.refusals);
        all.request_id = page.request_id;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || all.refusals.len() >= limit {
            break;
        }
    }
    all.refusals.truncate(limit);
    output.reply(&all, |all| refusal_table(&all.refusals))
}

fn refusal_table(refusals: &[proto::Refusal]) -> String {
    let row = |refusal: &proto::Refusal| {
        vec![
            spelling::time(refusal.last_at.as_ref()),
            refusal.attempts.to_string(),
            refusal.code.clone(),
            refusal.method.rsplit('/').next().unwrap_or_default().to_owned(),
            refusal.mqtt_instance_id.clone(),
            refusal.actor.clone(),
            refusal.account_id.clone(),
            refusal.source_address.clone(),
            refusal.request_id.clone(),
            refusal.message.clone(),
        ]
    };
    let header = [
        "LAST AT",
        "ATTEMPTS",
        "CODE",
        "CALL",
        "INSTANCE",
        "ACTOR",
        "ACCOUNT",
        "FROM",
        "REQUEST ID",
        "MESSAGE",
    ];
    table(&header, &refusals.iter().map(row).collect::<Vec<_>>())
}
