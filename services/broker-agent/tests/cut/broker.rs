//! A broker that notes what it gets: CONNACK for CONNECT, PINGRESP for PINGREQ.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use crate::harness::CONNECT;

/// What one connection brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub bytes: Vec<u8>,
    pub ended: bool,
}

pub struct FakeBroker {
    pub address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl FakeBroker {
    pub async fn tcp() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = socket.local_addr().unwrap();
        let seen = Arc::default();
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                stream.set_nodelay(true).unwrap();
                serve(stream, &notes);
            }
        });
        Self { address: address.to_string(), seen, task: task.abort_handle() }
    }

    pub fn unix(path: &std::path::Path) -> Self {
        let socket = UnixListener::bind(path).unwrap();
        let seen = Arc::default();
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                serve(stream, &notes);
            }
        });
        Self { address: format!("unix:{}", path.display()), seen, task: task.abort_handle() }
    }

    /// What each connection brought so far, in the order of their coming.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, seen: &Arc<Mutex<Vec<Seen>>>) {
    let index = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen::default());
        seen.len() - 1
    };
    let seen = Arc::clone(seen);
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            let bytes = &buffer[..count];
            {
                let mut seen = seen.lock().unwrap();
                seen[index].bytes.extend_from_slice(bytes);
                seen[index].ended = count == 0;
            }
            if count == 0 {
                return;
            }
            let answer: Vec<u8> = if bytes.ends_with(CONNECT) {
                vec![0x20, 2, 0, 0]
            } else {
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .filter(|pair| **pair == [0xc0, 0])
                    .flat_map(|_| [0xd0, 0])
                    .collect()
            };
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    });
}
