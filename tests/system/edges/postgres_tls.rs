//! TLS to Postgres: a server is believed for its CA and its name, and no other.

use catrust_tests::certificates::Ca;
use catrust_tests::postgres::{Postgres, Tls};
use catrust_tests::program::{Completion, repository};
use catrust_tests::server::run_server;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use tempfile::TempDir;

/// A Postgres that speaks TLS alone, and whoever wants to connect to it.
struct Site {
    postgres: Postgres,
    files: TempDir,
}

impl Site {
    /// Its certificate names 127.0.0.1 and no other host; roles show certificates.
    async fn start() -> anyhow::Result<Self> {
        let (servers, clients) = (Ca::root("servers")?, Ca::root("clients")?);
        let server = servers.leaf_with("the database", |params| {
            params.subject_alt_names = vec![SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })?;
        let files = tempfile::tempdir()?;
        std::fs::write(files.path().join("servers.pem"), &servers.pem)?;
        std::fs::write(files.path().join("others.pem"), Ca::root("others")?.pem)?;
        for (file, ca) in [("app", &clients), ("stranger", &Ca::root("strangers")?)] {
            let leaf = ca.leaf_with("catrust_app", |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            })?;
            std::fs::write(files.path().join(format!("{file}.pem")), leaf.pem)?;
            std::fs::write(files.path().join(format!("{file}.key")), leaf.key_pem)?;
        }
        let tls = Tls { certificate: &server.pem, key: &server.key_pem, client_ca: &clients.pem };
        let site = Self { postgres: Postgres::start_with_tls(&tls).await?, files };
        let owner = site.postgres.url();
        site.run("migrate", &[("URL", &owner), ("ROOT_CA_FILE", &site.file("servers.pem"))])
            .await?
            .success()?;
        site.postgres.psql(&repository().join("deploy/postgres/roles.sql")).await?;
        Ok(site)
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).to_string_lossy().into_owned()
    }

    /// Runs a command with `database.…` settings.
    async fn run(&self, command: &str, settings: &[(&str, &str)]) -> anyhow::Result<Completion> {
        let names: Vec<_> = settings.iter().map(|(name, _)| format!("CATRUST_DATABASE__{name}")).collect();
        let settings = names.iter().map(String::as_str).zip(settings.iter().map(|(_, value)| *value));
        run_server(&[command], &settings.collect::<Vec<_>>()).await
    }

    /// Runs `verify` as the servers' role, with a CA for the server and a certificate of one's own.
    async fn verify(&self, url: &str, ca: &str, own: &str) -> anyhow::Result<Completion> {
        let (ca, cert, key) =
            (self.file(ca), self.file(&format!("{own}.pem")), self.file(&format!("{own}.key")));
        let files = [("ROOT_CA_FILE", &*ca), ("CLIENT_CERT_FILE", &cert), ("CLIENT_KEY_FILE", &key)];
        self.run("verify", &[&[("URL", url)], &files[..]].concat()).await
    }
}

fn refused(finished: &Completion, why: &str) {
    assert_ne!(finished.code, Some(0), "{}", finished.stdout);
    assert!(finished.stderr.contains(why), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_believed_for_its_ca_and_its_name_alone() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let url = site.postgres.url_of("catrust_app");
    site.verify(&url, "servers.pem", "app").await?.success()?;
    site.verify(&format!("{url}?sslmode=verify-full"), "servers.pem", "app").await?.success()?;
    refused(&site.verify(&url, "others.pem", "app").await?, "invalid peer certificate: UnknownIssuer");
    // The same server by a name that is not in its certificate.
    let misnamed = url.replace("127.0.0.1", "localhost");
    refused(&site.verify(&misnamed, "servers.pem", "app").await?, "not valid for name");
    // Settings that would not look.
    let unchecked = format!("{url}?sslmode=require");
    refused(&site.verify(&unchecked, "servers.pem", "app").await?, "write sslmode=verify-full");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_believes_a_role_for_its_certificate() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let url = site.postgres.url_of("catrust_app");
    let ca = site.file("servers.pem");
    let none = site.run("verify", &[("URL", &url), ("ROOT_CA_FILE", &ca)]).await?;
    refused(&none, "requires a valid client certificate");
    let stranger = site.verify(&url, "servers.pem", "stranger").await?;
    assert_ne!(stranger.code, Some(0), "a certificate of another CA: {}", stranger.stdout);
    // In the name of another role.
    let auditor = site.postgres.url_of("another_role");
    refused(&site.verify(&auditor, "servers.pem", "app").await?, "certificate authentication failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_without_tls_is_refused_before_anything_is_sent() -> anyhow::Result<()> {
    // Reserved for documentation (RFC 5737): a connection would time out, not be refused.
    let url = "postgres://catrust_app@192.0.2.1:5432/catrust";
    for mode in ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-ca"] {
        for command in ["verify", "migrate", "rebuild"] {
            let address = format!("{url}{mode}");
            let finished = run_server(&[command], &[("CATRUST_DATABASE__URL", &address)]).await?;
            refused(&finished, "nothing proves that it is the one");
        }
    }
    let checked = run_server(&["config", "check"], &[("CATRUST_DATABASE__URL", url)]).await?;
    refused(&checked, "database.url: ");
    refused(&checked, "database.root_ca_file");
    Ok(())
}
