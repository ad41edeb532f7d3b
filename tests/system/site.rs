//! The two ways to run catrust, behind one face: a case that names its site only
//! runs on both.

use catrust_tests::client::Caller;
use catrust_tests::deployment::{ACCOUNT, Deployment, Plan, Replica};
use catrust_tests::instance::TestInstance;
use catrust_tests::server::Server;
use tempfile::TempDir;

/// A running catrust.
pub enum Site {
    /// `catrust-server dev`: SQLite, feed in process.
    Embedded {
        /// The server; before its files, so that it is gone when they are removed.
        server: Server,
        /// Its files.
        _data: TempDir,
    },
    /// `catrust-server serve`: Postgres and NATS.
    Production {
        /// The only replica; before what it stands on.
        replica: Replica,
        /// What it stands on.
        _deployment: Box<Deployment>,
    },
}

impl Site {
    /// Starts the embedded server.
    pub async fn embedded() -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        Ok(Self::Embedded { server: Server::dev(data.path()).await?, _data: data })
    }

    /// Starts a deployment of one replica.
    pub async fn production() -> anyhow::Result<Self> {
        let deployment = Plan::default().deploy().await?;
        let replica = deployment.replica("a").await?;
        Ok(Self::Production { replica, _deployment: Box::new(deployment) })
    }

    /// The operator of catrust.
    pub fn operator(&self) -> anyhow::Result<Caller> {
        match self {
            Self::Embedded { server, .. } => server.caller(None),
            Self::Production { replica, .. } => replica.operator(),
        }
    }

    /// An owner of instances.
    pub fn owner(&self) -> anyhow::Result<Caller> {
        match self {
            Self::Embedded { server, .. } => server.caller(None),
            Self::Production { replica, .. } => replica.owner(),
        }
    }

    /// Account of the owner.
    pub const fn account(&self) -> &'static str {
        match self {
            Self::Embedded { .. } => "dev",
            Self::Production { .. } => ACCOUNT,
        }
    }

    /// A new Platinum instance of the owner.
    pub async fn instance(&self) -> anyhow::Result<TestInstance> {
        Ok(TestInstance::register(&self.operator()?, &self.owner()?, self.account()).await?)
    }
}

/// Makes a test of each named case on each kind of site.
macro_rules! on_both_sites {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                super::$case(&$crate::site::Site::embedded().await?).await
            })*
        }
        mod production {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() -> anyhow::Result<()> {
                super::$case(&$crate::site::Site::production().await?).await
            })*
        }
    };
}
pub(crate) use on_both_sites;
