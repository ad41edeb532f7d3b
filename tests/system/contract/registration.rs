//! Registering a CA with proof of possession, reading it, and forgetting it.

use anyhow::Context as _;
use catrust_proto::v1::{
    CaCertificateState, InactivationScope, ListCaCertificateEventsRequest, ListCaCertificatesRequest,
};
use catrust_tests::certificates::{Ca, OpensslCa, unique};
use catrust_tests::client::refused;
use catrust_tests::instance::TestInstance;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::site::{Site, on_both_sites};

on_both_sites!(
    a_registered_certificate_tells_all_about_itself,
    certificates_of_every_usual_key_are_accepted,
    a_register_code_is_spent_by_the_registration_that_uses_it,
    a_serial_number_is_taken_until_it_is_deleted,
    a_deleted_certificate_lives_on_in_the_history,
);

async fn a_registered_certificate_tells_all_about_itself(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = Ca::root("Factory, North")?;
    let code = instance.code().await?;
    let request = instance.registration(&ca, &code)?;
    let reply = instance.caller.ca.clone().register_ca_certificate(request).await?.into_inner();
    assert_eq!(reply.sn, ca.sn);
    assert_eq!(reply.revision, 1);
    let certificate = reply.ca_certificate.context("no certificate")?;
    assert_eq!(certificate.mqtt_instance_id, instance.id);
    assert_eq!(certificate.sn, ca.sn);
    assert_eq!(certificate.ca_name, "a test CA");
    assert_eq!(certificate.state(), CaCertificateState::Active);
    assert_eq!(certificate.inactivation_scope(), InactivationScope::Unspecified);
    assert_eq!(certificate.sha256, hex::encode(Sha256::digest(&ca.der)));
    assert_eq!(certificate.spki_sha256.len(), 64);
    assert!(certificate.subject.contains(r"CN=Factory\, North"), "RFC 4514 escapes: {}", certificate.subject);
    assert_eq!(certificate.subject, certificate.issuer, "self-signed");
    assert_eq!(certificate.not_before.context("no start")?.seconds, 1_577_836_800);
    assert_eq!(certificate.not_after.context("no end")?.seconds, 2_524_521_600);
    assert_eq!(certificate.register_code, code);
    assert_eq!(certificate.registered_at, certificate.state_changed_at);
    assert!(!certificate.actor.is_empty());
    assert_eq!((certificate.state_reason.as_str(), certificate.revision), ("", 1));
    assert!(certificate.same_key_sns.is_empty());
    let lines = |pem: &str| pem.lines().map(str::trim).collect::<String>();
    assert_eq!(lines(&certificate.ca_content), lines(&ca.pem));
    assert_eq!(instance.get(&ca.sn).await?, certificate);
    Ok(())
}

async fn certificates_of_every_usual_key_are_accepted(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let keys: [&[&str]; 4] = [
        &["rsa:2048"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["ed25519"],
    ];
    for key in keys {
        let ca = OpensslCa::new(key, &[]).await?;
        let request = catrust_proto::v1::RegisterCaCertificateRequest {
            mqtt_instance_id: instance.id.clone(),
            ca_name: format!("{key:?}"),
            ca_content: ca.pem.clone(),
            verification_content: ca.verification(&instance.code().await?).await?,
            request_id: String::new(),
        };
        let reply = instance.caller.ca.clone().register_ca_certificate(request).await;
        let reply = reply.with_context(|| format!("{key:?}"))?.into_inner();
        assert_eq!(reply.sn, ca.sn().await?, "the spelling of openssl");
    }
    let root = Ca::root("root")?;
    let intermediate = root.intermediate("an intermediate without its root")?;
    instance.register_ca(&intermediate).await?;
    Ok(())
}

async fn a_register_code_is_spent_by_the_registration_that_uses_it(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let (code, unused) = (instance.code().await?, instance.code().await?);
    assert_ne!(code, unused);
    let (first, second) = (Ca::root("first")?, Ca::root("second")?);
    let mut client = instance.caller.ca.clone();
    client.register_ca_certificate(instance.registration(&first, &code)?).await?;
    let spent = client.register_ca_certificate(instance.registration(&second, &code)?).await;
    refused(spent, Code::FailedPrecondition, "RegisterCodeUsed")?;

    let never_issued = client.register_ca_certificate(instance.registration(&second, "no-such-code")?).await;
    refused(never_issued, Code::FailedPrecondition, "RegisterCodeError")?;
    let elsewhere = site.instance().await?;
    let foreign = client.register_ca_certificate(elsewhere.registration(&second, &unused)?).await;
    refused(foreign, Code::FailedPrecondition, "RegisterCodeError")?;
    client.register_ca_certificate(instance.registration(&second, &unused)?).await?;
    Ok(())
}

async fn a_serial_number_is_taken_until_it_is_deleted(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let mut client = instance.caller.ca.clone();
    let again = client.register_ca_certificate(instance.registration(&ca, &instance.code().await?)?).await;
    refused(again, Code::AlreadyExists, "SnNotUnique")?;
    let same_serial = Ca::with(&unique("other"), |params| {
        let bytes = hex::decode(&ca.sn).expect("canonical spellings are hexadecimal");
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&bytes));
    })?;
    let request = instance.registration(&same_serial, &instance.code().await?)?;
    refused(client.register_ca_certificate(request).await, Code::AlreadyExists, "SnNotUnique")?;
    // A serial number is unique inside an instance only.
    site.instance().await?.register_ca(&ca).await?;

    instance.delete(&ca.sn).await?;
    instance.register_ca(&same_serial).await?;
    Ok(())
}

async fn a_deleted_certificate_lives_on_in_the_history(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    instance.inactivate(&ca.sn).await?;
    let deleted = instance.delete(&ca.sn).await?;
    assert_eq!((deleted.sn.as_str(), deleted.revision), (ca.sn.as_str(), 3));
    refused(instance.get(&ca.sn).await, Code::NotFound, "FindCaBySnError")?;
    refused(instance.delete(&ca.sn).await, Code::NotFound, "FindCaBySnError")?;
    refused(instance.inactivate(&ca.sn).await, Code::NotFound, "FindCaBySnError")?;
    assert_eq!(count(&instance).await?, 0);

    let history = ListCaCertificateEventsRequest {
        mqtt_instance_id: instance.id.clone(),
        sn: ca.sn.clone(),
        ..Default::default()
    };
    let events = instance.caller.ca.clone().list_ca_certificate_events(history).await?.into_inner().events;
    let types: Vec<_> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["CaCertificateRegistered", "CaCertificateInactivated", "CaCertificateDeleted"]);
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(events[2].position, deleted.position);
    assert_eq!(events[1].reason, "a test");
    assert_eq!(events[2].request_id, deleted.request_id);
    for event in &events {
        assert_eq!((event.sn.as_str(), event.event_hash.len()), (ca.sn.as_str(), 64));
        assert_eq!(event.sha256, hex::encode(Sha256::digest(&ca.der)));
        assert!(!event.actor.is_empty() && event.occurred_at.is_some());
        event.event_id.parse::<uuid::Uuid>()?;
    }

    instance.register_ca(&ca).await?;
    let state = instance.get(&ca.sn).await?;
    assert_eq!((state.state(), state.revision), (CaCertificateState::Active, 4));
    Ok(())
}

async fn count(instance: &TestInstance) -> anyhow::Result<i32> {
    let request = ListCaCertificatesRequest { mqtt_instance_id: instance.id.clone(), ..Default::default() };
    Ok(instance.caller.ca.clone().list_ca_certificates(request).await?.into_inner().total_size)
}
