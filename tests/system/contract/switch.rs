//! Inactivate and activate.

use anyhow::Context as _;
use catrust_proto::v1::{ActivateCaCertificateRequest, CaCertificateState, InactivationScope};
use catrust_tests::client::refused;
use tonic::Code;

use crate::site::{Site, on_both_sites};

on_both_sites!(
    trust_is_turned_off_and_on_again,
    an_activation_may_say_which_change_it_has_seen,
    any_common_spelling_of_a_serial_number_finds_it,
    twins_of_one_key_are_named_and_the_scope_only_widens,
);

async fn trust_is_turned_off_and_on_again(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let bystander = instance.new_ca().await?;
    let before = instance.bundle().await?;

    let off = instance.inactivate(&ca.sn).await?;
    assert!(off.changed);
    assert_eq!((off.sn.as_str(), off.revision), (ca.sn.as_str(), 3));
    assert!(off.propagation.is_none(), "only where `wait` was set");
    let state = off.ca_certificate.clone().context("no certificate")?;
    assert_eq!(state.state(), CaCertificateState::Inactive);
    assert_eq!(state.inactivation_scope(), InactivationScope::Key, "KEY where unspecified");
    assert_eq!((state.state_reason.as_str(), state.revision), ("a test", 3));
    assert!(
        state.state_changed_at.context("no time")?.seconds >= state.registered_at.context("no time")?.seconds
    );
    assert_eq!(instance.get(&ca.sn).await?, state, "a read sees every acknowledged change");

    let again = instance.inactivate(&ca.sn).await?;
    assert!(!again.changed);
    assert_eq!((again.position, again.revision), (off.position, off.revision));
    assert_eq!(again.ca_certificate, off.ca_certificate);
    assert_eq!(instance.bundle().await?.revision, 3, "nothing was recorded");

    let on = instance.activate(&ca.sn).await?;
    assert!(on.changed);
    assert_eq!(on.revision, 4);
    assert!(on.position > off.position);
    let state = on.ca_certificate.context("no certificate")?;
    assert_eq!(state.state(), CaCertificateState::Active);
    assert_eq!(state.inactivation_scope(), InactivationScope::Unspecified);
    assert!(!instance.activate(&ca.sn).await?.changed);
    assert_eq!(instance.bundle().await?.bundle_digest, before.bundle_digest, "equal trust, equal digest");
    assert_eq!(instance.get(&bystander.sn).await?.revision, 2, "other certificates are untouched");
    Ok(())
}

/// Ground rule 21: a late retry must not let a CA in that was turned off since.
async fn an_activation_may_say_which_change_it_has_seen(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let off = instance.inactivate(&ca.sn).await?;
    let client = &instance.caller.ca;
    let seen_at = |revision| ActivateCaCertificateRequest {
        expected_revision: Some(revision),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..instance.activation(&ca.sn)
    };
    let late = seen_at(off.revision - 1);
    let refusal = client.clone().activate_ca_certificate(late).await;
    let refusal = refused(refusal, Code::FailedPrecondition, "MadeInactiveAgain")?;
    let told = format!("pass its revision, {}, as expected_revision", off.revision);
    assert!(refusal.message.contains("GetCaCertificate") && refusal.message.contains(&told), "{refusal:?}");
    assert_eq!(instance.get(&ca.sn).await?.state(), CaCertificateState::Inactive);

    let request = seen_at(off.revision);
    let on = client.clone().activate_ca_certificate(request.clone()).await?.into_inner();
    assert!(on.changed);
    let repeat = client.clone().activate_ca_certificate(request.clone()).await?.into_inner();
    assert_eq!(repeat, on, "the stored reply");
    let other = ActivateCaCertificateRequest { expected_revision: Some(off.revision + 9), ..request };
    let reused = client.clone().activate_ca_certificate(other).await;
    refused(reused, Code::InvalidArgument, "RequestIdReused")?;
    Ok(())
}

async fn any_common_spelling_of_a_serial_number_finds_it(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let bytes: Vec<_> = ca.sn.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    let colons = bytes.join(":");
    let spellings = [
        ca.sn.to_lowercase(),
        format!("0x{}", ca.sn),
        format!("0X{}", ca.sn.to_lowercase()),
        format!("00{}", ca.sn),
        format!("0{}", ca.sn),
        colons.to_lowercase(),
        format!("00:{colons}"),
        format!("{:0>128}", ca.sn),
    ];
    for (index, spelling) in spellings.iter().enumerate() {
        assert_eq!(instance.get(spelling).await?.sn, ca.sn, "{spelling}");
        let reply = if index % 2 == 0 {
            let reply = instance.inactivate(spelling).await?;
            (reply.sn, reply.changed)
        } else {
            let reply = instance.activate(spelling).await?;
            (reply.sn, reply.changed)
        };
        assert_eq!(reply, (ca.sn.clone(), true), "{spelling}");
    }
    let mut other = ca.sn.clone();
    other.replace_range(2..4, if &ca.sn[2..4] == "00" { "01" } else { "00" });
    refused(instance.get(&other).await, Code::NotFound, "FindCaBySnError")?;
    refused(instance.inactivate(&other).await, Code::NotFound, "FindCaBySnError")?;
    refused(instance.activate(&other).await, Code::NotFound, "FindCaBySnError")?;
    Ok(())
}

async fn twins_of_one_key_are_named_and_the_scope_only_widens(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let old = instance.new_ca().await?;
    let (renewed, third) = (old.renewed()?, old.renewed()?);
    instance.register_ca(&renewed).await?;
    let registered = instance.register_ca(&third).await?.ca_certificate.context("no certificate")?;
    let mut others = vec![old.sn.clone(), renewed.sn.clone()];
    others.sort();
    assert_eq!(registered.same_key_sns, others, "ascending");

    let mut request = instance.inactivation(&old.sn);
    request.scope = InactivationScope::Certificate.into();
    let narrow = instance.caller.ca.clone().inactivate_ca_certificate(request.clone()).await?.into_inner();
    let state = narrow.ca_certificate.context("no certificate")?;
    assert_eq!(state.inactivation_scope(), InactivationScope::Certificate);
    let mut others = vec![renewed.sn.clone(), third.sn.clone()];
    others.sort();
    assert_eq!(state.same_key_sns, others);
    assert_eq!(
        instance.get(&renewed.sn).await?.state(),
        CaCertificateState::Active,
        "the twin keeps its state"
    );

    let wide = instance.inactivate(&old.sn).await?;
    assert!(wide.changed, "CERTIFICATE widens to KEY");
    assert_eq!(wide.revision, narrow.revision + 1);
    let kept = instance.caller.ca.clone().inactivate_ca_certificate(request).await?.into_inner();
    assert!(!kept.changed, "KEY never narrows: that would turn trust on by a call that says off");
    let state = kept.ca_certificate.context("no certificate")?;
    assert_eq!(state.inactivation_scope(), InactivationScope::Key);

    instance.delete(&third.sn).await?;
    assert_eq!(instance.get(&old.sn).await?.same_key_sns, [renewed.sn]);
    Ok(())
}
