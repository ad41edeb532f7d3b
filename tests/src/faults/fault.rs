//! The faults, each with its beginning and its end.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::run::Site;
use crate::process::Signal;
use crate::proxy::{Direction, Passage, Proxy};

const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A replica is killed with -9, and started again.
    ServerKilled,
    /// A replica stands still (SIGSTOP): its connections stay, its clock goes on.
    ServerPaused,
    /// The database is killed with -9, and started again.
    DatabaseKilled,
    /// The database stands still.
    DatabasePaused,
    /// NATS is killed with -9, and started again.
    WireKilled,
    /// NATS stands still.
    WirePaused,
    /// NATS comes back with nothing of what it had.
    WireWiped,
    /// The connections of a replica to the database are reset, and new ones refused.
    DatabaseCut,
    /// Nothing passes between a replica and the database, and neither is told.
    DatabaseSilent,
    /// A replica is heard by the database, and does not hear it: answers to COMMIT are lost.
    AnswersLost,
    /// Nothing passes between a replica and NATS, and neither is told.
    WireSilent,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ServerKilled,
        Self::ServerPaused,
        Self::DatabaseKilled,
        Self::DatabasePaused,
        Self::WireKilled,
        Self::WirePaused,
        Self::WireWiped,
        Self::DatabaseCut,
        Self::DatabaseSilent,
        Self::AnswersLost,
        Self::WireSilent,
    ];

    /// The one of that name, as its `Debug` has it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))
    }

    /// Lets it happen to `site`, and mends it.
    ///
    /// # Errors
    /// When what was harmed does not come up again.
    pub async fn happen(self, site: &mut Site, draw: &mut StdRng) -> anyhow::Result<()> {
        let lasting = Duration::from_millis(draw.random_range(200..3_000));
        let replica = draw.random_range(0..site.replicas());
        site.history.note(|events| {
            events.faults.push((site.history.now(), format!("{self:?} {replica} {lasting:?}")));
        });
        match self {
            Self::ServerKilled => {
                site.kill_server(replica);
                tokio::time::sleep(lasting).await;
                site.start_server(replica).await?;
            }
            Self::ServerPaused => {
                site.signal_server(replica, Signal::STOP);
                tokio::time::sleep(lasting).await;
                site.signal_server(replica, Signal::CONT);
            }
            Self::DatabaseKilled => {
                site.deployment.postgres.kill();
                tokio::time::sleep(lasting).await;
                site.deployment.postgres.restart().await?;
            }
            Self::DatabasePaused => {
                site.deployment.postgres.pause();
                tokio::time::sleep(lasting).await;
                site.deployment.postgres.resume();
            }
            Self::WireKilled => {
                site.deployment.nats_mut().kill();
                tokio::time::sleep(lasting).await;
                site.deployment.nats_mut().restart().await?;
            }
            Self::WirePaused => {
                site.deployment.nats().pause();
                tokio::time::sleep(lasting).await;
                site.deployment.nats().resume();
            }
            Self::WireWiped => site.deployment.nats_mut().wipe().await?,
            Self::DatabaseCut => {
                site.to_database[replica].cut();
                tokio::time::sleep(lasting).await;
                site.to_database[replica].mend();
            }
            Self::DatabaseSilent => silence(&site.to_database[replica], &BOTH, lasting).await,
            Self::AnswersLost => silence(&site.to_database[replica], &[Direction::ToClient], lasting).await,
            Self::WireSilent => silence(&site.to_wire[replica], &BOTH, lasting).await,
        }
        site.history.note(|events| events.faults.push((site.history.now(), format!("{self:?} mended"))));
        Ok(())
    }
}

/// Lets nothing through in these directions for a while. TCP loses nothing of it.
async fn silence(way: &Proxy, directions: &[Direction], lasting: Duration) {
    directions.iter().for_each(|direction| way.set(*direction, Passage::BlackHole));
    tokio::time::sleep(lasting).await;
    directions.iter().for_each(|direction| way.set(*direction, Passage::Open));
}
