//! Limits of an instance that are settings.

use catrust_tests::certificates::Ca;
use catrust_tests::client::refused;
use catrust_tests::deployment::Plan;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_holds_as_many_certificates_as_the_setting_says() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }.set("limits.certificates_per_instance", "2");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let first = instance.new_ca().await?;
    instance.new_ca().await?;
    let third = Ca::root("third")?;
    let request = instance.registration(&third, &instance.code().await?)?;
    let mut client = instance.caller.ca.clone();
    let reply = client.register_ca_certificate(request.clone()).await;
    refused(reply, Code::FailedPrecondition, "CaNumExceed")?;
    // Inactive ones count, deleted ones do not.
    instance.inactivate(&first.sn).await?;
    let reply = client.register_ca_certificate(request.clone()).await;
    refused(reply, Code::FailedPrecondition, "CaNumExceed")?;
    instance.delete(&first.sn).await?;
    client.register_ca_certificate(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_newest_64_register_codes_are_valid() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let (oldest, second) = (instance.code().await?, instance.code().await?);
    for _ in 0..63 {
        instance.code().await?;
    }
    let ca = Ca::root("a CA")?;
    let mut client = instance.caller.ca.clone();
    let dropped = client.register_ca_certificate(instance.registration(&ca, &oldest)?).await;
    refused(dropped, Code::FailedPrecondition, "RegisterCodeError")?;
    client.register_ca_certificate(instance.registration(&ca, &second)?).await?;
    Ok(())
}
