//! InstanceService.

use anyhow::Context as _;
use catrust_proto::v1::{
    Edition, GetInstanceRequest, Instance, ListInstancesRequest, RegisterInstanceRequest,
    UpdateInstanceRequest,
};
use catrust_tests::certificates::unique;
use catrust_tests::client::refused;
use tonic::Code;

use crate::site::{Site, on_both_sites};

on_both_sites!(
    an_instance_is_registered_read_updated_and_listed,
    registering_an_instance_again_changes_nothing,
    only_platinum_instances_change_states,
);

async fn read(site: &Site, id: &str) -> anyhow::Result<Instance> {
    let request = GetInstanceRequest { mqtt_instance_id: id.to_owned() };
    let reply = site.operator()?.instances.get_instance(request).await?.into_inner();
    reply.request_id.parse::<uuid::Uuid>()?;
    reply.instance.context("no instance")
}

fn registration(site: &Site, id: &str) -> RegisterInstanceRequest {
    RegisterInstanceRequest {
        mqtt_instance_id: id.to_owned(),
        region_id: "cn-hangzhou".to_owned(),
        owner_account_id: site.account().to_owned(),
        edition: Edition::Professional.into(),
        request_id: String::new(),
    }
}

async fn an_instance_is_registered_read_updated_and_listed(site: &Site) -> anyhow::Result<()> {
    let mut operator = site.operator()?.instances;
    let id = unique("mqtt");
    let registered = operator.register_instance(registration(site, &id)).await?.into_inner();
    assert!(registered.changed);
    assert!(registered.position > 0);
    let instance = registered.instance.context("no instance")?;
    assert_eq!(instance.mqtt_instance_id, id);
    assert_eq!(instance.region_id, "cn-hangzhou");
    assert_eq!(instance.edition(), Edition::Professional);
    assert_eq!((instance.revision, instance.ca_certificate_count), (0, 0));
    assert_eq!(instance.bundle_digest.len(), 64);
    assert_eq!(instance.registered_at, instance.updated_at);
    assert_eq!(read(site, &id).await?, instance);

    let upgrade = UpdateInstanceRequest {
        mqtt_instance_id: id.clone(),
        edition: Edition::Platinum.into(),
        ..Default::default()
    };
    let updated = operator.update_instance(upgrade.clone()).await?.into_inner();
    assert!(updated.changed);
    assert!(updated.position > registered.position);
    let updated_instance = updated.instance.context("no instance")?;
    assert_eq!(updated_instance.edition(), Edition::Platinum);
    assert_eq!(updated_instance.owner_account_id, site.account(), "an empty field stays as it is");
    assert_eq!(read(site, &id).await?, updated_instance);

    let again = operator.update_instance(upgrade).await?.into_inner();
    assert!(!again.changed);
    assert_eq!(again.position, updated.position, "the position of the event that made the state");

    let listed =
        operator.list_instances(ListInstancesRequest { page_size: 100, ..Default::default() }).await?;
    let listed = listed.into_inner();
    assert_eq!(usize::try_from(listed.total_size)?, listed.instances.len());
    assert_eq!(listed.instances.last(), Some(&updated_instance), "the order of registration");
    Ok(())
}

async fn registering_an_instance_again_changes_nothing(site: &Site) -> anyhow::Result<()> {
    let mut operator = site.operator()?.instances;
    let request = registration(site, &unique("mqtt"));
    let first = operator.register_instance(request.clone()).await?.into_inner();
    let second = operator.register_instance(request.clone()).await?.into_inner();
    assert!(first.changed && !second.changed);
    assert_eq!((first.position, &first.instance), (second.position, &second.instance));

    let other = RegisterInstanceRequest { region_id: "eu-central-1".to_owned(), ..request };
    refused(operator.register_instance(other).await, Code::AlreadyExists, "MqttInstanceExists")?;
    Ok(())
}

async fn only_platinum_instances_change_states(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    for edition in [Edition::Professional, Edition::Standard] {
        let downgrade = UpdateInstanceRequest {
            mqtt_instance_id: instance.id.clone(),
            edition: edition.into(),
            ..Default::default()
        };
        site.operator()?.instances.update_instance(downgrade).await?;
        refused(instance.inactivate(&ca.sn).await, Code::FailedPrecondition, "EditionNotSupported")?;
        refused(instance.activate(&ca.sn).await, Code::FailedPrecondition, "EditionNotSupported")?;
        // The edition is looked at before the certificate is.
        refused(instance.inactivate("ABCD").await, Code::FailedPrecondition, "EditionNotSupported")?;
        instance.get(&ca.sn).await?;
    }
    let ca = instance.new_ca().await?;
    instance.delete(&ca.sn).await?;
    Ok(())
}
