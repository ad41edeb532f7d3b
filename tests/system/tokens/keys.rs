//! The issuer's keys: changed, withdrawn, out of reach.

use std::time::Duration;

use catrust_tests::certificates::Ca;
use catrust_tests::deployment::Replica;
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::issuer::{Key, Publisher, claims, key_set};

use super::{deployed, no_identity, plan, read};

/// How long new keys may take: the pause between two looks is 10 s.
const NOTICED: Duration = Duration::from_secs(45);

async fn is_accepted(replica: &Replica, id: &str, token: &str) -> anyhow::Result<()> {
    eventually(NOTICED, "the token is accepted", async || {
        read(replica, id, token).await.map(drop).map_err(|status| status.message().to_owned())
    })
    .await
}

async fn is_refused(replica: &Replica, id: &str, token: &str) -> anyhow::Result<()> {
    eventually(NOTICED, "the token is refused", async || {
        no_identity(read(replica, id, token).await).map(drop)
    })
    .await
}

async fn is_failing(replica: &Replica, failing: bool) -> anyhow::Result<()> {
    let line = format!(" {}", u8::from(failing));
    eventually(NOTICED, "the gauge of the key set", async || {
        let text = http::get(&replica.admin, "/metrics").await?.1;
        let told: Vec<_> =
            text.lines().filter(|line| line.starts_with("catrust_identity_key_set_failing")).collect();
        anyhow::ensure!(told.iter().any(|told| told.ends_with(&line)), "{told:?}");
        Ok(())
    })
    .await
}

/// The interval is 5 minutes: it is the token with the new key that makes the server look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_fetched_when_it_is_shown_and_a_withdrawn_one_is_forgotten() -> anyhow::Result<()> {
    let (old, new) = (Key::es256("old")?, Key::es256("new")?);
    let publisher = Publisher::start(&[&old]).await?;
    let (_deployment, replica) = deployed(&publisher).await?;
    let instance = replica.instance().await?;
    let (by_old, by_new) = (old.token(&claims("alice")), new.token(&claims("bob")));
    read(&replica, &instance.id, &by_old).await?;
    no_identity(read(&replica, &instance.id, &by_new).await)?;
    publisher.publish(&[&old, &new]);
    is_accepted(&replica, &instance.id, &by_new).await?;
    read(&replica, &instance.id, &by_old).await?;

    publisher.publish(&[&new]);
    let newest = Key::es256("newest")?.token(&claims("alice"));
    eventually(NOTICED, "the old key is forgotten", async || {
        // It is in the set in force, so that only another unknown one makes the server look.
        no_identity(read(&replica, &instance.id, &newest).await)?;
        no_identity(read(&replica, &instance.id, &by_old).await).map(drop)
    })
    .await?;
    read(&replica, &instance.id, &by_new).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_keys_do_not_have_the_issuer_asked_for_each() -> anyhow::Result<()> {
    let key = Key::es256("k")?;
    let publisher = Publisher::start(&[&key]).await?;
    let (_deployment, replica) = deployed(&publisher).await?;
    let instance = replica.instance().await?;
    let started = std::time::Instant::now();
    for number in 0..200 {
        let forged = Key::es256(&format!("made-up-{number}"))?.token(&claims("alice"));
        no_identity(read(&replica, &instance.id, &forged).await)?;
    }
    let (asked, most) = (publisher.asked(), 2 + started.elapsed().as_secs() as usize / 10);
    assert!((1..=most).contains(&asked), "asked {asked} times, {most} would be fair");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_cannot_be_fetched_leave_in_force_what_was() -> anyhow::Result<()> {
    let key = Key::es256("k")?;
    let publisher = Publisher::start(&[&key]).await?;
    let url = format!("{:?}", publisher.url());
    let deployment =
        plan().set("auth.jwt.key_set_url", &url).set("auth.jwt.refresh_seconds", "10").deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let token = key.token(&claims("alice"));
    publisher.set_away(true);
    is_failing(&replica, true).await?;
    read(&replica, &instance.id, &token).await?;
    publisher.publish_text("{\"keys\": []}");
    publisher.set_away(false);
    let before = publisher.asked();
    eventually(NOTICED, "the empty set is looked at", async || match publisher.asked() {
        now if now > before + 1 => Ok(()),
        now => Err(format!("{now} after {before}")),
    })
    .await?;
    read(&replica, &instance.id, &token).await?;
    publisher.publish(&[&key]);
    is_failing(&replica, false).await?;
    assert!(replica.server.output().text().contains("cannot be read"), "told in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_while_the_issuer_is_away() -> anyhow::Result<()> {
    let key = Key::es256("k")?;
    let publisher = Publisher::start(&[&key]).await?;
    publisher.set_away(true);
    let (_deployment, replica) = deployed(&publisher).await?;
    let instance = replica.instance().await?;
    let token = key.token(&claims("alice"));
    no_identity(read(&replica, &instance.id, &token).await)?;
    assert_eq!(http::get(&replica.admin, "/readyz").await?.0, 200);
    publisher.set_away(false);
    is_accepted(&replica, &instance.id, &token).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_by_https_count_under_a_ca_that_is_trusted_and_in_a_good_answer() -> anyhow::Result<()> {
    let (key, ca) = (Key::es256("k")?, Ca::root("the issuer's CA")?);
    let publisher = Publisher::start_tls(&[&key], &ca.server()?).await?;
    let files = tempfile::tempdir()?;
    let put = |name: &str, pem: &str| -> anyhow::Result<String> {
        let path = files.path().join(name);
        std::fs::write(&path, pem)?;
        Ok(format!("{path:?}"))
    };
    let (right, wrong) = (put("right.pem", &ca.pem)?, put("wrong.pem", &Ca::root("a stranger's CA")?.pem)?);
    let token = key.token(&claims("alice"));
    let elsewhere = publisher.url().replace("jwks.json", "elsewhere");
    let cases =
        [(publisher.url(), &right, true), (publisher.url(), &wrong, false), (&*elsewhere, &right, false)];
    for (url, ca_file, good) in cases {
        let plan =
            plan().set("auth.jwt.key_set_url", &format!("{url:?}")).set("auth.jwt.key_set_ca_file", ca_file);
        let deployment = plan.deploy().await?;
        let replica = deployment.replica("a").await?;
        let instance = replica.instance().await?;
        let answer = read(&replica, &instance.id, &token).await;
        if good {
            answer?;
        } else {
            no_identity(answer)?;
        }
        is_failing(&replica, !good).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_in_a_file_are_read_again() -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let path = files.path().join("jwks.json");
    let put = |text: &str| -> anyhow::Result<()> {
        std::fs::write(files.path().join(".new"), text)?;
        Ok(std::fs::rename(files.path().join(".new"), &path)?)
    };
    let (old, new) = (Key::es256("k")?, Key::es256("k")?);
    put(&key_set(&[&old]))?;
    let deployment = plan().set("auth.jwt.key_set_file", &format!("{path:?}")).deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let (by_old, by_new) = (old.token(&claims("alice")), new.token(&claims("alice")));
    read(&replica, &instance.id, &by_old).await?;
    put("not JSON")?;
    is_failing(&replica, true).await?;
    read(&replica, &instance.id, &by_old).await?;
    put(&key_set(&[&new]))?;
    is_accepted(&replica, &instance.id, &by_new).await?;
    is_refused(&replica, &instance.id, &by_old).await?;

    // At the start there is nothing to fall back on.
    put("{}")?;
    let finished = deployment.command(&["serve"]).await?;
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("auth.jwt.key_set_file"), "{finished:?}");
    Ok(())
}
