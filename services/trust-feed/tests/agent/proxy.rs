//! A way to a server that can hang: connections stay, and nothing passes any more.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on to one server, until it is dropped.
pub struct Proxy {
    pub url: String,
    frozen: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Proxy {
    pub async fn start(url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (frozen, is_frozen) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                connections.spawn(pass(from_client, to_server, is_frozen.clone()));
                connections.spawn(pass(from_server, to_client, is_frozen.clone()));
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), frozen, _task: task }
    }

    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = [0; 8_192];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 || frozen.wait_for(|frozen| !*frozen).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
    }
}
