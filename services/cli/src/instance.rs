//! `catrust instance`: the MQTT fleets that catrust knows.

use catrust_proto::v1 as proto;
use clap::{Args, Subcommand, ValueEnum};

use crate::api_client::{ApiClient, new_request_id};
use crate::failure::Failure;
use crate::output::{Printer, fields, table};
use crate::spelling;

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// Make an instance known. The same values again change nothing.
    Register(RegisterInstanceArguments),
    /// Change the owner or the edition.
    Update(UpdateInstanceArguments),
    /// List instances in the order of registration.
    List(ListInstancesArguments),
    /// Show one instance.
    Show(ShowInstanceArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RegisterInstanceArguments {
    /// Name of the fleet: 1 to 64 of A-Z a-z 0-9 _ -.
    instance: String,
    /// Region that it lives in.
    #[arg(long)]
    region: String,
    /// Account that owns it.
    #[arg(long, value_name = "ACCOUNT")]
    account: String,
    /// Edition; only Platinum may change the states of CA certificates.
    #[arg(long, value_enum)]
    edition: EditionArgument,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct UpdateInstanceArguments {
    /// Instance to change.
    instance: String,
    /// New owner.
    #[arg(long, value_name = "ACCOUNT", required_unless_present = "edition")]
    account: Option<String>,
    /// New edition.
    #[arg(long, value_enum)]
    edition: Option<EditionArgument>,
}

#[derive(Debug, Args)]
pub(crate) struct ListInstancesArguments {
    /// Stop after this many; all of them otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowInstanceArguments {
    /// Instance to show.
    instance: String,
}

/// Editions as the command line spells them.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum EditionArgument {
    /// Everything, including inactivation and activation.
    Platinum,
    /// Registration and queries.
    Professional,
    /// Registration and queries.
    Standard,
}

impl From<EditionArgument> for proto::Edition {
    fn from(edition: EditionArgument) -> Self {
        match edition {
            EditionArgument::Platinum => Self::Platinum,
            EditionArgument::Professional => Self::Professional,
            EditionArgument::Standard => Self::Standard,
        }
    }
}

pub(crate) async fn run(command: InstanceCommand, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    match command {
        InstanceCommand::Register(arguments) => register(arguments, api, output).await,
        InstanceCommand::Update(arguments) => update(arguments, api, output).await,
        InstanceCommand::List(arguments) => list(arguments, api, output).await,
        InstanceCommand::Show(arguments) => show(arguments, api, output).await,
    }
}

async fn register(
    arguments: RegisterInstanceArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let message = proto::RegisterInstanceRequest {
        mqtt_instance_id: arguments.instance,
        region_id: arguments.region,
        owner_account_id: arguments.account,
        edition: proto::Edition::from(arguments.edition).into(),
        request_id: new_request_id(),
    };
    let mut client = api.instances();
    let reply = api.call(message, async |request| client.register_instance(request).await).await?;
    output.reply(&reply, |reply| changed_instance(reply.instance.as_ref(), reply.changed, reply.position))
}

async fn update(
    arguments: UpdateInstanceArguments,
    api: &ApiClient,
    output: &Printer,
) -> Result<(), Failure> {
    let edition = arguments.edition.map_or(proto::Edition::Unspecified, Into::into);
    let message = proto::UpdateInstanceRequest {
        mqtt_instance_id: arguments.instance,
        owner_account_id: arguments.account.unwrap_or_default(),
        edition: edition.into(),
        request_id: new_request_id(),
    };
    let mut client = api.instances();
    let reply = api.call(message, async |request| client.update_instance(request).await).await?;
    output.reply(&reply, |reply| changed_instance(reply.instance.as_ref(), reply.changed, reply.position))
}

async fn show(arguments: ShowInstanceArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let message = proto::GetInstanceRequest { mqtt_instance_id: arguments.instance };
    let mut client = api.instances();
    let reply = api.call(message, async |request| client.get_instance(request).await).await?;
    output.reply(&reply, |reply| reply.instance.as_ref().map(instance_fields).unwrap_or_default())
}

async fn list(arguments: ListInstancesArguments, api: &ApiClient, output: &Printer) -> Result<(), Failure> {
    let limit = arguments.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut all = proto::ListInstancesResponse::default();
    let mut client = api.instances();
    loop {
        let message = proto::ListInstancesRequest { page_size: 100, page_token: all.next_page_token };
        let page = api.call(message, async |request| client.list_instances(request).await).await?;
        all.instances.extend(page.instances);
        (all.request_id, all.total_size) = (page.request_id, page.total_size);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.instances.len() >= limit {
            break;
        }
    }
    all.instances.truncate(limit);
    // The token continues after whole pages, which need not be where the limit cut.
    all.next_page_token.clear();
    output.reply(&all, |all| instance_table(&all.instances))
}

fn changed_instance(instance: Option<&proto::Instance>, changed: bool, position: u64) -> String {
    let mut text = instance.map(instance_fields).unwrap_or_default();
    text.push_str(&match changed {
        true => format!("\nrecorded at position {position}"),
        false => format!("\nnothing to change; so since position {position}"),
    });
    text
}

fn instance_fields(instance: &proto::Instance) -> String {
    fields(&[
        ("instance", instance.mqtt_instance_id.clone()),
        ("region", instance.region_id.clone()),
        ("owner account", instance.owner_account_id.clone()),
        ("edition", spelling::edition(instance.edition()).to_owned()),
        ("revision", spelling::revision_cell(instance.revision)),
        ("bundle digest", instance.bundle_digest.clone()),
        ("CA certificates", instance.ca_certificate_count.to_string()),
        ("registered at", spelling::time(instance.registered_at.as_ref())),
        ("updated at", spelling::time(instance.updated_at.as_ref())),
    ])
}

fn instance_table(instances: &[proto::Instance]) -> String {
    let row = |instance: &proto::Instance| {
        vec![
            instance.mqtt_instance_id.clone(),
            instance.region_id.clone(),
            instance.owner_account_id.clone(),
            spelling::edition(instance.edition()).to_owned(),
            spelling::revision_cell(instance.revision),
            instance.ca_certificate_count.to_string(),
            spelling::time(instance.registered_at.as_ref()),
        ]
    };
    let header = ["INSTANCE", "REGION", "OWNER", "EDITION", "REVISION", "CAS", "REGISTERED AT"];
    table(&header, &instances.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> proto::Instance {
        proto::Instance {
            mqtt_instance_id: "fleet-a".to_owned(),
            region_id: "cn-hangzhou".to_owned(),
            owner_account_id: "1234567890".to_owned(),
            edition: proto::Edition::Platinum.into(),
            revision: 3,
            bundle_digest: "ab".repeat(32),
            ca_certificate_count: 2,
            registered_at: Some(catrust_proto::Timestamp { seconds: 1_772_366_400, nanos: 0 }),
            updated_at: None,
        }
    }

    #[test]
    fn a_list_is_a_table() {
        let expected = "\
INSTANCE  REGION       OWNER       EDITION   REVISION  CAS  REGISTERED AT
fleet-a   cn-hangzhou  1234567890  PLATINUM  3         2    2026-03-01T12:00:00Z
";
        assert_eq!(instance_table(&[instance()]), expected);
    }

    #[test]
    fn a_repeated_registration_says_that_nothing_changed() {
        let text = changed_instance(Some(&instance()), false, 7);
        assert!(text.contains("edition          PLATINUM\n"), "{text}");
        assert!(text.ends_with("nothing to change; so since position 7"), "{text}");
    }
}
