//! Each field of each call, with values that it must refuse.

use std::fmt::Debug;

use catrust_proto::v1::*;
use catrust_tests::certificates::Ca;
use catrust_tests::client::{Caller, refused, refused_field};
use catrust_tests::instance::TestInstance;
use tonic::{Code, Response, Status};

use crate::site::{Site, on_both_sites};

on_both_sites!(
    identifiers_refuse_everything_that_reaches_into_subjects,
    serial_numbers_refuse_everything_else,
    texts_have_a_length_and_no_control_characters,
    enums_refuse_unknown_values,
    a_missing_instance_is_told_before_a_missing_certificate,
    all_wrong_fields_are_named_at_once,
);

/// Values that are no identifier.
fn hostile_identifiers() -> Vec<String> {
    let fixed = [
        "",
        "*",
        ">",
        "a.b",
        "a b",
        " a",
        "a ",
        "a\0",
        "a\n",
        "a\tb",
        "$SYS",
        "a/b",
        "a:b",
        "a%00",
        "é",
        "\u{202e}",
        "\u{1F600}",
        "'; DROP TABLE events; --",
        "..",
        "%s%n",
        "\u{feff}a",
        "{\"a\":1}",
    ];
    let long = ["a".repeat(65), "a".repeat(100_000), "\u{1F600}".repeat(64)];
    fixed.iter().map(|text| (*text).to_owned()).chain(long).collect()
}

/// Calls every method that names an instance, with `id`.
async fn on_every_method(caller: &Caller, id: &str) -> anyhow::Result<()> {
    let (mut ca, mut instances, mut trust) =
        (caller.ca.clone(), caller.instances.clone(), caller.trust.clone());
    let id = || id.to_owned();
    fn check<T: Debug>(result: Result<Response<T>, Status>) -> anyhow::Result<()> {
        refused_field(result.map(Response::into_inner), "mqtt_instance_id").map(drop)
    }
    check(
        ca.get_register_code(GetRegisterCodeRequest { mqtt_instance_id: id(), ..Default::default() }).await,
    )?;
    let request = GetCaCertificateRequest { mqtt_instance_id: id(), sn: "01".to_owned() };
    check(ca.get_ca_certificate(request).await)?;
    check(
        ca.list_ca_certificates(ListCaCertificatesRequest { mqtt_instance_id: id(), ..Default::default() })
            .await,
    )?;
    let request =
        InactivateCaCertificateRequest { mqtt_instance_id: id(), sn: "01".to_owned(), ..Default::default() };
    check(ca.inactivate_ca_certificate(request).await)?;
    let request =
        ActivateCaCertificateRequest { mqtt_instance_id: id(), sn: "01".to_owned(), ..Default::default() };
    check(ca.activate_ca_certificate(request).await)?;
    let request =
        DeleteCaCertificateRequest { mqtt_instance_id: id(), sn: "01".to_owned(), ..Default::default() };
    check(ca.delete_ca_certificate(request).await)?;
    let request = ListCaCertificateEventsRequest { mqtt_instance_id: id(), ..Default::default() };
    check(ca.list_ca_certificate_events(request).await)?;
    check(instances.get_instance(GetInstanceRequest { mqtt_instance_id: id() }).await)?;
    let request = UpdateInstanceRequest { mqtt_instance_id: id(), ..Default::default() };
    check(instances.update_instance(request).await)?;
    let request = RegisterInstanceRequest {
        mqtt_instance_id: id(),
        region_id: "r".to_owned(),
        owner_account_id: "o".to_owned(),
        edition: Edition::Platinum.into(),
        ..Default::default()
    };
    check(instances.register_instance(request).await)?;
    check(trust.get_trust_bundle(GetTrustBundleRequest { mqtt_instance_id: id(), at: None }).await)?;
    let watch = trust.watch_trust(WatchTrustRequest { mqtt_instance_id: id(), ..Default::default() }).await;
    refused_field(watch.map(drop), "mqtt_instance_id")?;
    Ok(())
}

async fn identifiers_refuse_everything_that_reaches_into_subjects(site: &Site) -> anyhow::Result<()> {
    let operator = site.operator()?;
    for id in hostile_identifiers() {
        on_every_method(&operator, &id).await.map_err(|error| error.context(format!("{id:.40?}")))?;
    }
    let instance = site.instance().await?;
    let valid = RegisterInstanceRequest {
        mqtt_instance_id: "valid".to_owned(),
        region_id: "r".to_owned(),
        owner_account_id: "o".to_owned(),
        edition: Edition::Platinum.into(),
        request_id: String::new(),
    };
    let mut instances = operator.instances.clone();
    for text in hostile_identifiers() {
        let request = RegisterInstanceRequest { region_id: text.clone(), ..valid.clone() };
        refused_field(instances.register_instance(request).await, "region_id")?;
        let request = RegisterInstanceRequest { owner_account_id: text.clone(), ..valid.clone() };
        refused_field(instances.register_instance(request).await, "owner_account_id")?;
        if text.is_empty() {
            continue;
        }
        let request = UpdateInstanceRequest {
            mqtt_instance_id: instance.id.clone(),
            owner_account_id: text.clone(),
            ..Default::default()
        };
        refused_field(instances.update_instance(request).await, "owner_account_id")?;
        let request = WatchTrustRequest {
            mqtt_instance_id: instance.id.clone(),
            broker_id: text,
            ..Default::default()
        };
        refused_field(operator.trust.clone().watch_trust(request).await.map(drop), "broker_id")?;
    }
    Ok(())
}

async fn serial_numbers_refuse_everything_else(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let fixed = [
        "",
        "0x",
        ":",
        "7A:",
        ":7A",
        "7A::0F",
        "7A0F:11",
        "G1",
        "-7A",
        "+7A",
        " 7A",
        "7A ",
        "7A\n",
        "7A\0",
        "é",
        "*",
        "%",
        "7A' OR '1'='1",
        "\u{ff17}\u{ff21}",
        "0x0x7A",
        "1g5",
        "\u{1F600}",
    ];
    let long = ["A".repeat(129), "0".repeat(129), "A".repeat(100_000)];
    for sn in fixed.iter().map(|text| (*text).to_owned()).chain(long) {
        refused_field(instance.get(&sn).await, "sn")?;
        refused_field(instance.inactivate(&sn).await, "sn")?;
        refused_field(instance.activate(&sn).await, "sn")?;
        refused_field(instance.delete(&sn).await, "sn")?;
        if sn.is_empty() {
            continue;
        }
        let request = ListCaCertificateEventsRequest {
            mqtt_instance_id: instance.id.clone(),
            sn,
            ..Default::default()
        };
        refused_field(instance.caller.ca.clone().list_ca_certificate_events(request).await, "sn")?;
    }
    let longest = "A".repeat(128);
    refused(instance.get(&longest).await, Code::NotFound, "FindCaBySnError")?;
    let request = ListCaCertificateEventsRequest {
        mqtt_instance_id: instance.id.clone(),
        sn: longest,
        ..Default::default()
    };
    let history = instance.caller.ca.clone().list_ca_certificate_events(request).await;
    refused(history, Code::NotFound, "FindCaBySnError")?;
    Ok(())
}

async fn texts_have_a_length_and_no_control_characters(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let mut client = instance.caller.ca.clone();
    let controls = ["\0", "a\nb", "a\rb", "\u{1b}[31mred", "\u{7f}", "\u{85}", "a\tb"];
    let hostile = controls.iter().map(|text| (*text).to_owned());
    let too_long = ["x".repeat(513), "\u{1F600}".repeat(513), "x".repeat(100_000)];
    for reason in hostile.clone().chain(too_long) {
        let request =
            InactivateCaCertificateRequest { reason: reason.clone(), ..instance.inactivation(&ca.sn) };
        refused_field(client.inactivate_ca_certificate(request).await, "reason")?;
        let request = ActivateCaCertificateRequest { reason: reason.clone(), ..instance.activation(&ca.sn) };
        refused_field(client.activate_ca_certificate(request).await, "reason")?;
        let request = DeleteCaCertificateRequest {
            mqtt_instance_id: instance.id.clone(),
            sn: ca.sn.clone(),
            reason,
            ..Default::default()
        };
        refused_field(client.delete_ca_certificate(request).await, "reason")?;
    }
    // Characters count, not bytes; and a reason is data, whatever it looks like.
    for reason in ["\u{1F600}".repeat(512), "'; DROP TABLE events; --".to_owned(), "\u{202e}<b>".to_owned()] {
        let request =
            InactivateCaCertificateRequest { reason: reason.clone(), ..instance.inactivation(&ca.sn) };
        client.inactivate_ca_certificate(request).await?;
        assert_eq!(instance.get(&ca.sn).await?.state_reason, reason);
        instance.activate(&ca.sn).await?;
    }

    let other = Ca::root("other")?;
    let valid = instance.registration(&other, &instance.code().await?)?;
    for ca_name in hostile.chain([String::new(), "x".repeat(65), "x".repeat(100_000)]) {
        let request = RegisterCaCertificateRequest { ca_name, ..valid.clone() };
        refused_field(client.register_ca_certificate(request).await, "ca_name")?;
    }
    let ca_name = "\u{1F600}".repeat(64);
    let request = RegisterCaCertificateRequest { ca_name: ca_name.clone(), ..valid };
    client.register_ca_certificate(request).await?;
    assert_eq!(instance.get(&other.sn).await?.ca_name, ca_name);
    Ok(())
}

async fn enums_refuse_unknown_values(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let operator = site.operator()?;
    for value in [-1, 4, 99, i32::MAX, i32::MIN] {
        let request = InactivateCaCertificateRequest { scope: value, ..instance.inactivation(&ca.sn) };
        refused_field(instance.caller.ca.clone().inactivate_ca_certificate(request).await, "scope")?;
        let request = ListCaCertificatesRequest {
            mqtt_instance_id: instance.id.clone(),
            state: value,
            ..Default::default()
        };
        refused_field(instance.caller.ca.clone().list_ca_certificates(request).await, "state")?;
        let request = UpdateInstanceRequest {
            mqtt_instance_id: instance.id.clone(),
            edition: value,
            ..Default::default()
        };
        refused_field(operator.instances.clone().update_instance(request).await, "edition")?;
    }
    let unstated = RegisterInstanceRequest {
        mqtt_instance_id: "unstated".to_owned(),
        region_id: "r".to_owned(),
        owner_account_id: "o".to_owned(),
        ..Default::default()
    };
    refused_field(operator.instances.clone().register_instance(unstated).await, "edition")?;
    Ok(())
}

async fn a_missing_instance_is_told_before_a_missing_certificate(site: &Site) -> anyhow::Result<()> {
    let real = site.instance().await?;
    let ca = Ca::root("a CA")?;
    let registration = real.registration(&ca, &real.code().await?)?;
    let absent = TestInstance { id: "no-such-instance".to_owned(), ..real };
    let code = "MqttInstanceNotFound";
    refused(absent.get("01").await, Code::NotFound, code)?;
    refused(absent.inactivate("01").await, Code::NotFound, code)?;
    refused(absent.activate("01").await, Code::NotFound, code)?;
    refused(absent.delete("01").await, Code::NotFound, code)?;
    refused(absent.code().await, Code::NotFound, code)?;
    refused(absent.bundle().await, Code::NotFound, code)?;
    let request = RegisterCaCertificateRequest { mqtt_instance_id: absent.id.clone(), ..registration };
    refused(absent.caller.ca.clone().register_ca_certificate(request).await, Code::NotFound, code)?;
    let id = || absent.id.clone();
    let mut client = absent.caller.ca.clone();
    let request = ListCaCertificatesRequest { mqtt_instance_id: id(), ..Default::default() };
    refused(client.list_ca_certificates(request).await, Code::NotFound, code)?;
    let request = ListCaCertificateEventsRequest { mqtt_instance_id: id(), ..Default::default() };
    refused(client.list_ca_certificate_events(request).await, Code::NotFound, code)?;
    let watch = WatchTrustRequest { mqtt_instance_id: id(), ..Default::default() };
    refused(absent.caller.trust.clone().watch_trust(watch).await.map(drop), Code::NotFound, code)?;
    let mut operator = site.operator()?.instances;
    refused(
        operator.get_instance(GetInstanceRequest { mqtt_instance_id: id() }).await,
        Code::NotFound,
        code,
    )?;
    let update = UpdateInstanceRequest { mqtt_instance_id: id(), ..Default::default() };
    refused(operator.update_instance(update).await, Code::NotFound, code)?;
    // Fields come before the instance.
    refused_field(absent.inactivate("not hexadecimal").await, "sn")?;
    Ok(())
}

async fn all_wrong_fields_are_named_at_once(site: &Site) -> anyhow::Result<()> {
    let request = InactivateCaCertificateRequest {
        mqtt_instance_id: "a.b".to_owned(),
        sn: "zz".to_owned(),
        reason: "\0".to_owned(),
        scope: 77,
        wait: None,
        request_id: "x".to_owned(),
    };
    let reply = site.owner()?.ca.inactivate_ca_certificate(request).await;
    let refusal = refused(reply, Code::InvalidArgument, "ParameterFieldCheckFailed")?;
    let mut fields = refusal.fields.clone();
    fields.sort();
    assert_eq!(fields, ["mqtt_instance_id", "reason", "request_id", "scope", "sn"]);
    for field in &fields {
        assert!(refusal.message.contains(field.as_str()), "the message names {field}: {}", refusal.message);
    }
    Ok(())
}
