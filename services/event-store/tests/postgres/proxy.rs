//! A TCP proxy before Postgres that cuts connections where a test wants it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What happens to a connection, once.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// COMMIT reaches the server, its answer does not come back.
    LoseCommitAnswer,
    /// COMMIT does not reach the server.
    LoseCommit,
    /// The connection is cut instead of sending the client's next message but this many.
    CutAfter(u32),
    /// COMMIT reaches the server, and nothing does after it, on any connection.
    LoseCommitAnswerAndServer,
}

/// What the connections share.
#[derive(Default)]
struct State {
    fault: Option<Fault>,
    closed: bool,
}

/// Forwards to one server. Ends with its owner.
pub struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Starts on a free port.
    pub async fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let server = SocketAddr::from(([127, 0, 0, 1], server_port));
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&state))).abort_handle();
        Self { port, state, accepting }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Plants a fault for the next occasion.
    pub fn plant(&self, fault: Fault) {
        self.state.lock().unwrap().fault = Some(fault);
    }

    /// Whether the planted fault has not happened yet.
    pub fn is_planted(&self) -> bool {
        self.state.lock().unwrap().fault.is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if !state.lock().unwrap().closed {
            connections.spawn(forward(client, server, Arc::clone(&state)));
        }
    }
}

/// What to do with a message of the client.
#[derive(PartialEq)]
enum Verdict {
    Forward,
    Cut,
    ForwardAndCut,
}

async fn forward(mut client: TcpStream, server: SocketAddr, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut from_server) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let message = &from_client[..read?];
                let verdict = judge(&state, message);
                if message.is_empty() || verdict == Verdict::Cut {
                    return Ok(());
                }
                server.write_all(message).await?;
                if verdict == Verdict::ForwardAndCut {
                    // Only once the answer is here has the server surely committed.
                    return server.read(&mut from_server).await.map(drop);
                }
            }
            read = server.read(&mut from_server) => {
                let message = &from_server[..read?];
                if message.is_empty() {
                    return Ok(());
                }
                client.write_all(message).await?;
            }
        }
    }
}

fn judge(state: &Mutex<State>, message: &[u8]) -> Verdict {
    let mut state = state.lock().unwrap();
    let commit = message.windows(7).any(|window| window == b"COMMIT\0");
    match state.fault {
        Some(Fault::LoseCommitAnswer) if commit => state.fault = None,
        Some(Fault::LoseCommitAnswerAndServer) if commit => {
            state.fault = None;
            state.closed = true;
        }
        Some(Fault::LoseCommit) if commit => {
            state.fault = None;
            return Verdict::Cut;
        }
        Some(Fault::CutAfter(0)) => {
            state.fault = None;
            return Verdict::Cut;
        }
        Some(Fault::CutAfter(more)) => {
            state.fault = Some(Fault::CutAfter(more - 1));
            return Verdict::Forward;
        }
        _ => return Verdict::Forward,
    }
    Verdict::ForwardAndCut
}
