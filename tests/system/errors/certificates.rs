//! Certificates that are not usable, one by one.

use catrust_proto::v1::RegisterCaCertificateRequest;
use catrust_tests::certificates::{Ca, OpensslCa};
use catrust_tests::client::{refused, refused_field};
use catrust_tests::instance::TestInstance;
use rcgen::{IsCa, KeyUsagePurpose, SerialNumber, date_time_ymd};
use tonic::Code;

use crate::site::{Site, on_both_sites};

on_both_sites!(
    what_is_no_certificate_is_refused,
    a_certificate_that_may_not_issue_is_refused,
    serial_numbers_that_cannot_be_spelt_are_refused,
    a_verification_certificate_must_be_signed_by_the_ca,
    a_refused_registration_does_not_spend_the_code,
);

/// Registers the two texts and expects a refusal that names the field.
async fn refuses(instance: &TestInstance, ca: &str, verification: &str, field: &str) -> anyhow::Result<()> {
    let request = RegisterCaCertificateRequest {
        mqtt_instance_id: instance.id.clone(),
        ca_name: "odd".to_owned(),
        ca_content: ca.to_owned(),
        verification_content: verification.to_owned(),
        request_id: String::new(),
    };
    let reply = instance.caller.ca.clone().register_ca_certificate(request).await;
    let refusal = refused(reply, Code::InvalidArgument, "CertificateContentError")?;
    anyhow::ensure!(refusal.fields == [field], "expected {field}: {refusal:?}");
    anyhow::ensure!(!refusal.message.contains("PRIVATE"), "the message quotes a key");
    Ok(())
}

fn not_certificates(good: &Ca) -> Vec<(&'static str, String)> {
    let body: String = good.pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let flipped = good.pem.replacen(&body[40..44], "AAAA", 1);
    vec![
        ("text", "hello".to_owned()),
        ("nul", "\0".to_owned()),
        ("PEM without end", good.pem.replace("-----END CERTIFICATE-----", "")),
        ("empty PEM", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned()),
        ("not base64", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n".to_owned()),
        ("not DER", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned()),
        (
            "truncated DER",
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", &body[..100]),
        ),
        ("damaged DER", flipped),
        ("two certificates", format!("{}{}", good.pem, good.pem)),
        ("a private key", good.key_pem()),
        ("a certificate and its key", format!("{}{}", good.pem, good.key_pem())),
        ("another label", good.pem.replace("CERTIFICATE", "CERTIFICATE REQUEST")),
        ("bare base64", body),
        ("spaces", " ".repeat(65_536)),
    ]
}

async fn what_is_no_certificate_is_refused(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let good = Ca::root("good")?;
    let verification = good.verification(&instance.code().await?)?;
    for (what, text) in not_certificates(&good) {
        refuses(&instance, &text, &verification, "ca_content").await.map_err(|error| error.context(what))?;
        refuses(&instance, &good.pem, &text, "verification_content")
            .await
            .map_err(|error| error.context(what))?;
    }
    let empty = RegisterCaCertificateRequest {
        mqtt_instance_id: instance.id.clone(),
        ca_name: "odd".to_owned(),
        ..Default::default()
    };
    let reply = instance.caller.ca.clone().register_ca_certificate(empty).await;
    let refusal = refused(reply, Code::InvalidArgument, "ParameterFieldCheckFailed")?;
    assert_eq!(refusal.fields, ["ca_content", "verification_content"], "missing, not unusable");
    let mut long = instance.registration(&good, "code")?;
    long.ca_content.push_str(&"\n".repeat(65_537));
    refused_field(instance.caller.ca.clone().register_ca_certificate(long).await, "ca_content")?;
    let mut long = instance.registration(&good, "code")?;
    long.verification_content.push_str(&"\n".repeat(65_537));
    refused_field(instance.caller.ca.clone().register_ca_certificate(long).await, "verification_content")?;
    Ok(())
}

async fn a_certificate_that_may_not_issue_is_refused(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let code = instance.code().await?;
    let odd = [
        ("no basic constraints", Ca::with("odd", |params| params.is_ca = IsCa::NoCa)?),
        ("CA:FALSE", Ca::with("odd", |params| params.is_ca = IsCa::ExplicitNoCa)?),
        (
            "no keyCertSign",
            Ca::with("odd", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature])?,
        ),
        ("expired", Ca::with("odd", |params| params.not_after = date_time_ymd(2021, 1, 1))?),
        ("not yet valid", Ca::with("odd", |params| params.not_before = date_time_ymd(2045, 1, 1))?),
    ];
    for (what, ca) in odd {
        let verification = ca.verification(&code)?;
        refuses(&instance, &ca.pem, &verification, "ca_content")
            .await
            .map_err(|error| error.context(what))?;
    }
    let without_key_usage = Ca::with("plain", |params| params.key_usages = Vec::new())?;
    instance.register_ca(&without_key_usage).await?;
    Ok(())
}

async fn serial_numbers_that_cannot_be_spelt_are_refused(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let too_long = format!("0x{}", "7A".repeat(65));
    for serial in ["-5", too_long.as_str()] {
        let ca = OpensslCa::new(&key, &["-set_serial", serial]).await?;
        let verification = ca.verification(&instance.code().await?).await?;
        let refusal = refuses(&instance, &ca.pem, &verification, "ca_content").await;
        refusal.map_err(|error| error.context(format!("serial {serial}")))?;
    }
    let longest = Ca::with("longest", |params| {
        params.serial_number = Some(SerialNumber::from_slice(&[0x7a; 64]));
    })?;
    instance.register_ca(&longest).await?;
    assert_eq!(instance.get(&"7A".repeat(64)).await?.sn.len(), 128);
    instance.inactivate(&"7a".repeat(64)).await?;
    Ok(())
}

async fn a_verification_certificate_must_be_signed_by_the_ca(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let code = instance.code().await?;
    let (good, stranger) = (Ca::root("one name")?, Ca::root("one name")?);
    let field = "verification_content";
    // The same name, another key: only the signature tells.
    refuses(&instance, &good.pem, &stranger.verification(&code)?, field).await?;
    let other_name = Ca::root("another name")?;
    refuses(&instance, &good.pem, &other_name.verification(&code)?, field).await?;
    let expired = good.leaf_with(&code, |params| params.not_after = date_time_ymd(2021, 1, 1))?;
    refuses(&instance, &good.pem, &expired.pem, field).await?;
    let early = good.leaf_with(&code, |params| params.not_before = date_time_ymd(2045, 1, 1))?;
    refuses(&instance, &good.pem, &early.pem, field).await?;
    let nameless =
        good.leaf_with("", |params| params.distinguished_name = rcgen::DistinguishedName::new())?;
    refuses(&instance, &good.pem, &nameless.pem, field).await?;
    Ok(())
}

async fn a_refused_registration_does_not_spend_the_code(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let code = instance.code().await?;
    let (good, stranger) = (Ca::root("good")?, Ca::root("stranger")?);
    refuses(&instance, &good.pem, &stranger.verification(&code)?, "verification_content").await?;
    let request = instance.registration(&good, &code)?;
    instance.caller.ca.clone().register_ca_certificate(request).await?;
    Ok(())
}
