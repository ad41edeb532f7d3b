//! Idempotency by request id, and the id of every reply.

use catrust_proto::v1::{
    DeleteCaCertificateRequest, Edition, GetRegisterCodeRequest, RegisterInstanceRequest,
    UpdateInstanceRequest,
};
use catrust_tests::certificates::{Ca, request_id, unique};
use catrust_tests::client::{refused, refused_field};
use prost::Message as _;
use tonic::{Code, Response, Status};

use crate::site::{Site, on_both_sites};

on_both_sites!(
    a_repeated_request_gets_the_same_reply,
    a_request_id_belongs_to_one_request,
    a_repeat_after_later_changes_still_gets_the_first_reply,
    a_request_id_is_a_uuid_and_each_reply_has_one,
    concurrent_repeats_have_one_effect,
);

/// The reply as bytes, after checking that it carries the asked-for id.
fn bytes<T: prost::Message>(
    reply: Result<Response<T>, Status>,
    id: &str,
    own_id: impl Fn(&T) -> &String,
) -> anyhow::Result<Vec<u8>> {
    let reply = reply?;
    assert_eq!(
        reply.metadata().get("x-request-id").map(tonic::metadata::MetadataValue::as_bytes),
        Some(id.as_bytes())
    );
    assert_eq!(own_id(reply.get_ref()), id);
    Ok(reply.get_ref().encode_to_vec())
}

/// Calls twice with the same id and compares the replies byte for byte.
macro_rules! same_twice {
    ($client:expr, $method:ident, $request:expr) => {{
        let mut request = $request;
        request.request_id = request_id();
        let first = bytes($client.$method(request.clone()).await, &request.request_id, |r| &r.request_id)?;
        let second = bytes($client.$method(request.clone()).await, &request.request_id, |r| &r.request_id)?;
        assert_eq!(first, second, stringify!($method));
        request
    }};
}

async fn a_repeated_request_gets_the_same_reply(site: &Site) -> anyhow::Result<()> {
    let mut instances = site.operator()?.instances;
    let registration = RegisterInstanceRequest {
        mqtt_instance_id: unique("mqtt"),
        region_id: "cn-hangzhou".to_owned(),
        owner_account_id: site.account().to_owned(),
        edition: Edition::Platinum.into(),
        request_id: String::new(),
    };
    same_twice!(instances, register_instance, registration);

    let instance = site.instance().await?;
    let update = UpdateInstanceRequest {
        mqtt_instance_id: instance.id.clone(),
        edition: Edition::Standard.into(),
        ..Default::default()
    };
    let mut update = same_twice!(instances, update_instance, update);
    update.edition = Edition::Platinum.into();
    same_twice!(instances, update_instance, update);

    let mut client = instance.caller.ca.clone();
    let code = GetRegisterCodeRequest { mqtt_instance_id: instance.id.clone(), request_id: String::new() };
    same_twice!(client, get_register_code, code);
    let ca = Ca::root("a CA")?;
    let request = instance.registration(&ca, &instance.code().await?)?;
    same_twice!(client, register_ca_certificate, request);
    same_twice!(client, inactivate_ca_certificate, instance.inactivation(&ca.sn));
    same_twice!(client, activate_ca_certificate, instance.activation(&ca.sn));
    let deletion = DeleteCaCertificateRequest {
        mqtt_instance_id: instance.id.clone(),
        sn: ca.sn.clone(),
        ..Default::default()
    };
    same_twice!(client, delete_ca_certificate, deletion);
    assert_eq!(instance.bundle().await?.revision, 4, "each request had one effect");
    Ok(())
}

async fn a_request_id_belongs_to_one_request(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let (ca, other) = (instance.new_ca().await?, instance.new_ca().await?);
    let mut client = instance.caller.ca.clone();
    let mut request = instance.inactivation(&ca.sn);
    request.request_id = request_id();
    client.inactivate_ca_certificate(request.clone()).await?;

    let mut other_reason = request.clone();
    other_reason.reason = "another reason".to_owned();
    let mut other_sn = request.clone();
    other_sn.sn = other.sn.clone();
    for changed in [other_reason, other_sn] {
        let reply = client.inactivate_ca_certificate(changed).await;
        let refusal = refused(reply, Code::InvalidArgument, "RequestIdReused")?;
        assert_eq!(refusal.request_id, request.request_id);
    }
    let mut other_method = instance.activation(&ca.sn);
    other_method.request_id = request.request_id.clone();
    refused(client.activate_ca_certificate(other_method).await, Code::InvalidArgument, "RequestIdReused")?;
    assert!(!client.inactivate_ca_certificate(request).await?.into_inner().sn.is_empty());
    assert_eq!(instance.bundle().await?.revision, 3);
    Ok(())
}

async fn a_repeat_after_later_changes_still_gets_the_first_reply(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let mut client = instance.caller.ca.clone();
    let mut request = instance.inactivation(&ca.sn);
    request.request_id = request_id();
    let first = client.inactivate_ca_certificate(request.clone()).await?.into_inner();
    instance.activate(&ca.sn).await?;
    let repeat = client.inactivate_ca_certificate(request.clone()).await?.into_inner();
    assert_eq!(first.encode_to_vec(), repeat.encode_to_vec());
    assert!(repeat.changed);
    assert_eq!(instance.get(&ca.sn).await?.revision, 3, "the repeat did not turn trust off again");
    // The same id in other letters is the same id.
    request.request_id = request.request_id.to_uppercase();
    let repeat = client.inactivate_ca_certificate(request).await?.into_inner();
    assert_eq!((repeat.position, repeat.changed), (first.position, true));
    Ok(())
}

async fn a_request_id_is_a_uuid_and_each_reply_has_one(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let mut client = instance.caller.ca.clone();
    let reply = client.inactivate_ca_certificate(instance.inactivation(&ca.sn)).await?;
    let header = reply.metadata().get("x-request-id").cloned();
    let own = reply.into_inner().request_id;
    own.parse::<uuid::Uuid>()?;
    assert_eq!(header.as_ref().map(tonic::metadata::MetadataValue::as_bytes), Some(own.as_bytes()));
    for wrong in ["x", "123", "not-a-uuid", &"1".repeat(1_000), "urn:uuid:", "*", "\u{0}"] {
        let mut request = instance.inactivation(&ca.sn);
        request.request_id = wrong.to_owned();
        refused_field(client.inactivate_ca_certificate(request).await, "request_id")?;
    }
    Ok(())
}

async fn concurrent_repeats_have_one_effect(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let mut request = instance.inactivation(&ca.sn);
    request.request_id = request_id();
    let calls = (0..16).map(|_| {
        let (mut client, request) = (instance.caller.ca.clone(), request.clone());
        async move { client.inactivate_ca_certificate(request).await }
    });
    let replies = futures::future::try_join_all(calls).await?;
    let replies: Vec<_> = replies.into_iter().map(|reply| reply.into_inner().encode_to_vec()).collect();
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert_eq!(instance.bundle().await?.revision, 2);
    Ok(())
}
