//! A TCP proxy between two of a test's parties, which breaks the way between them: in
//! one direction or in both, for connections that are open and for those to come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Bytes taken at a time.
const CHUNK: usize = 16 * 1024;

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// They arrive.
    Open,
    /// They arrive later by this much, in their order.
    Delayed(Duration),
    /// They do not arrive, and nobody is told: no reset, no end. Once the passage is open
    /// again they do, as TCP sends again what was lost.
    BlackHole,
}

/// A direction through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What clients send.
    ToServer,
    /// What the server sends.
    ToClient,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    target: SocketAddr,
    to_server: Passage,
    to_client: Passage,
    /// While odd, the way is cut; each change ends the connections that are open.
    cuts: u64,
}

impl Rules {
    const fn passage(&self, direction: Direction) -> Passage {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    const fn is_cut(&self) -> bool {
        self.cuts % 2 == 1
    }
}

/// A proxy on a free port of 127.0.0.1; ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rules: Arc<watch::Sender<Rules>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one that leads to `port` of 127.0.0.1, with both directions open.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let rules = Rules {
            target: SocketAddr::from(([127, 0, 0, 1], port)),
            to_server: Passage::Open,
            to_client: Passage::Open,
            cuts: 0,
        };
        let rules = Arc::new(watch::Sender::new(rules));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&rules)));
        Ok(Self { address, rules, accepting })
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sets what becomes of bytes in one direction.
    pub fn set(&self, direction: Direction, passage: Passage) {
        self.rules.send_modify(|rules| match direction {
            Direction::ToServer => rules.to_server = passage,
            Direction::ToClient => rules.to_client = passage,
        });
    }

    /// Sets what becomes of bytes in both directions.
    pub fn set_both(&self, passage: Passage) {
        self.set(Direction::ToServer, passage);
        self.set(Direction::ToClient, passage);
    }

    /// Ends all connections; new ones are ended at once until [`Proxy::mend`].
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += u64::from(!rules.is_cut()));
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.rules.send_modify(|rules| rules.cuts += u64::from(rules.is_cut()));
    }

    /// Leads new connections to another port of 127.0.0.1; the open ones stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.rules.send_modify(|rules| rules.target.set_port(port));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // The pumps end when nobody can change the rules any more.
        self.cut();
    }
}

async fn accept(listener: TcpListener, rules: Arc<watch::Sender<Rules>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(client, rules.subscribe()));
    }
}

/// Serves one connection until either side ends it, or the way is cut.
async fn serve(client: TcpStream, mut rules: watch::Receiver<Rules>) {
    let now = *rules.borrow_and_update();
    if now.is_cut() {
        return;
    }
    let Ok(server) = TcpStream::connect(now.target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = pump(from_client, to_server, Direction::ToServer, rules.clone());
    let back = pump(from_server, to_client, Direction::ToClient, rules.clone());
    let is_over = |rules: &Rules| rules.cuts != now.cuts;
    tokio::select! {
        // Half a connection is none: an end in one direction ends both, once it arrives.
        () = there => {}
        () = back => {}
        _ = rules.wait_for(is_over) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut rules: watch::Receiver<Rules>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await.unwrap_or(0);
        // The end of a connection stays in a black hole like anything else.
        let is_through = |rules: &Rules| rules.passage(direction) != Passage::BlackHole;
        let Ok(passage) = rules.wait_for(is_through).await.map(|rules| rules.passage(direction)) else {
            return;
        };
        if let Passage::Delayed(by) = passage {
            sleep(by).await;
        }
        if read == 0 || to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
