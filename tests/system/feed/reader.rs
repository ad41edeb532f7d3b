//! A reader in another language, by the rules of the contract alone.

use std::fmt::Write as _;

use catrust_proto::v1::InactivationScope;
use catrust_tests::deployment::{OWNER, Plan};
use catrust_tests::foreign::script;
use serde_json::Value;

use super::nats::collect;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_in_python_verifies_signatures_digests_and_headers() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let (first, second) = (instance.new_ca().await?, instance.new_ca().await?);
    let mut request = instance.inactivation(&first.sn);
    request.scope = InactivationScope::Certificate.into();
    instance.caller.ca.clone().inactivate_ca_certificate(request).await?;
    instance.inactivate(&second.sn).await?;
    instance.activate(&second.sn).await?;
    let third = instance.new_ca().await?;
    let last = instance.delete(&third.sn).await?.position;

    deployment.nats().reaches(last, std::time::Duration::from_secs(20)).await?;
    let mut lines = String::new();
    for message in collect(deployment.nats()).await? {
        let headers: Vec<_> =
            message.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let headers: serde_json::Map<_, _> =
            headers.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        let record = serde_json::json!({
            "subject": message.subject, "sequence": message.sequence, "headers": headers, "body": message.body,
        });
        writeln!(lines, "{record}")?;
    }
    let file = deployment.files.path().join("messages");
    std::fs::write(&file, lines)?;

    let key = deployment.trust_key();
    let arguments =
        [replica.server.authority(), OWNER, &instance.id, &key.to_string_lossy(), &file.to_string_lossy()];
    let finished = script("feed.py", &arguments).await?.success()?;
    let report: Value = serde_json::from_str(finished.stdout.trim())?;
    assert_eq!(report["revision"], 7);
    assert_eq!(report["entries"], 2);
    assert_eq!(report["change"], 7, "from revision 0 every change can be sent: {report}");
    // Of the 11 events, the kept messages: the last one of each subject.
    assert_eq!(report["published"], 5, "{report}");
    Ok(())
}
