//! One connection to the plugin, over the broker's control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catrust_mosquitto_control::{REQUEST_TOPIC, RESPONSE_TOPIC, Request, RequestBody, Response};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::packet::{self, Incoming};
use super::settings::MosquittoSettings;

/// Seconds without a packet after which the broker ends the connection; renewals come
/// far more often.
const KEEP_ALIVE: u16 = 60;
/// Packets that wait to be looked at. The broker sends one per request.
const QUEUE: usize = 16;

/// Why the plugin was not reached, or did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The socket cannot be opened: the broker is away, or the path is another one.
    #[error("the control socket {path} cannot be opened")]
    Open {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The broker refuses the agent.
    #[error(
        "the broker refuses the agent (CONNACK {0}): is the plugin loaded, and are its options agent_user \
         and control_socket those of this agent?"
    )]
    Refused(u8),
    /// The connection broke.
    #[error("the connection to the broker broke")]
    Broken(#[source] io::Error),
    /// Nothing came in time.
    #[error(
        "no answer from the plugin within {0:?}: do the access rules have `topic readwrite \
         $CONTROL/ca-trust/v1/#` for the agent, and is the plugin loaded outside of listeners?"
    )]
    NoAnswer(Duration),
    /// The answer is none.
    #[error("the plugin's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The bundle is too long for MQTT: 256 MB.
    #[error("the request is too long")]
    TooLong(#[from] packet::TooLong),
}

/// An open connection. Ends when it is dropped.
#[derive(Debug)]
pub struct ControlConnection {
    write: OwnedWriteHalf,
    incoming: mpsc::Receiver<io::Result<Incoming>>,
    /// Reads for us: reading a packet cannot be broken off and taken up again.
    _reader: JoinSet<()>,
    answer_timeout: Duration,
    next_id: u64,
}

impl ControlConnection {
    /// Connects as the agent.
    ///
    /// # Errors
    /// [`ControlError::Open`], [`ControlError::Refused`], [`ControlError::Broken`],
    /// [`ControlError::NoAnswer`].
    pub async fn open(settings: &MosquittoSettings) -> Result<Self, ControlError> {
        let path: &Path = &settings.control_socket;
        let opening = async {
            let stream = UnixStream::connect(path)
                .await
                .map_err(|source| ControlError::Open { path: path.to_owned(), source })?;
            Self::greet(stream, settings).await
        };
        let limit = settings.answer_timeout;
        timeout(limit, opening).await.map_err(|_| ControlError::NoAnswer(limit))?
    }

    async fn greet(stream: UnixStream, settings: &MosquittoSettings) -> Result<Self, ControlError> {
        let (mut read, mut write) = stream.into_split();
        let user = &settings.agent_user;
        // Nobody can take a session over whose name he cannot guess; the plugin refuses
        // devices with names that begin so, too.
        let client_id = format!("{user}-{}", Uuid::new_v4().simple());
        write
            .write_all(&packet::connect(&client_id, user, KEEP_ALIVE)?)
            .await
            .map_err(ControlError::Broken)?;
        match packet::read(&mut read).await.map_err(ControlError::Broken)? {
            Incoming::Connected(0) => {}
            Incoming::Connected(code) => return Err(ControlError::Refused(code)),
            Incoming::Published { .. } | Incoming::Other => {
                let source = io::Error::new(io::ErrorKind::InvalidData, "CONNACK was expected");
                return Err(ControlError::Broken(source));
            }
        }
        let (sender, incoming) = mpsc::channel(QUEUE);
        let mut reader = JoinSet::new();
        reader.spawn(read_all(read, sender));
        let answer_timeout = settings.answer_timeout;
        Ok(Self { write, incoming, _reader: reader, answer_timeout, next_id: 1 })
    }

    /// Sends a request, and waits for its response. After an error the connection is of
    /// no more use.
    ///
    /// # Errors
    /// [`ControlError::Broken`], [`ControlError::NoAnswer`], [`ControlError::Unreadable`],
    /// [`ControlError::TooLong`].
    pub async fn request(&mut self, body: RequestBody) -> Result<Response, ControlError> {
        let limit = self.answer_timeout;
        timeout(limit, self.exchange(body)).await.map_err(|_| ControlError::NoAnswer(limit))?
    }

    async fn exchange(&mut self, body: RequestBody) -> Result<Response, ControlError> {
        let id = self.next_id;
        self.next_id += 1;
        let request = serde_json::to_vec(&Request { id, body }).map_err(ControlError::Unreadable)?;
        // One request at a time, so that one identifier is enough.
        let publish = packet::publish(REQUEST_TOPIC, &request, 1)?;
        self.write.write_all(&publish).await.map_err(ControlError::Broken)?;
        loop {
            let response = self.next_response().await?;
            // Another number: the answer to a request that was given up. Number 0: the
            // plugin could not read the request.
            if response.id == id || response.id == 0 {
                return Ok(response);
            }
        }
    }

    async fn next_response(&mut self) -> Result<Response, ControlError> {
        loop {
            match self.incoming.recv().await.unwrap_or_else(|| Err(ended())) {
                Ok(Incoming::Published { topic, payload, id }) => {
                    if let Some(id) = id {
                        let acknowledgement = packet::acknowledge(id);
                        self.write.write_all(&acknowledgement).await.map_err(ControlError::Broken)?;
                    }
                    if topic == RESPONSE_TOPIC {
                        return serde_json::from_slice(&payload).map_err(ControlError::Unreadable);
                    }
                }
                Ok(Incoming::Connected(_) | Incoming::Other) => {}
                Err(error) => return Err(ControlError::Broken(error)),
            }
        }
    }

    /// Keeps the connection open while there is nothing to ask.
    ///
    /// # Errors
    /// [`ControlError::Broken`].
    pub async fn ping(&mut self) -> Result<(), ControlError> {
        self.write.write_all(&packet::PING).await.map_err(ControlError::Broken)
    }

    /// Waits until the connection breaks. Cancel safe. What comes meanwhile answers
    /// nothing.
    pub async fn broken(&mut self) -> ControlError {
        loop {
            match self.incoming.recv().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return ControlError::Broken(error),
                None => return ControlError::Broken(ended()),
            }
        }
    }
}

fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

async fn read_all(mut read: OwnedReadHalf, sender: mpsc::Sender<io::Result<Incoming>>) {
    loop {
        let incoming = packet::read(&mut read).await;
        let is_last = incoming.is_err();
        if sender.send(incoming).await.is_err() || is_last {
            return;
        }
    }
}
