//! Carries bytes between one device and the broker.
//!
//! A session has no buffer of its own while it is idle: reads go into one buffer of
//! the thread and from there straight to the other side. What the other side does
//! not take is copied, and nothing more is read until it is gone, so that a slow side
//! holds back the other one.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::{DISCONNECT, Framing, HOLD, NotMqtt, boundary_after};

/// Bytes per read. A TLS record has no more than 16 KiB.
const READ: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; HOLD + READ]);
}

/// How a relay ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The device left, and the broker has been told.
    Device,
    /// The broker closed, and the device has all that it sent.
    Broker,
    /// One side took nothing for longer than the limit.
    Stalled,
}

/// Limits of time.
#[derive(Clone, Copy, Debug)]
pub struct PumpLimits {
    /// How long one side may take nothing while there is something for it.
    pub stall: Duration,
    /// How long the broker may send on after the device has left.
    pub linger: Duration,
}

/// Bytes on their way to a side that did not take them all.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    written: usize,
}

impl Rest {
    /// Gives the memory back once all is written: an idle session has none.
    fn advance(&mut self, written: usize) {
        self.written += written;
        if self.written == self.bytes.len() {
            *self = Self::default();
        }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A device and a broker, connected.
#[derive(Debug)]
pub struct Pump<D, B> {
    device: D,
    broker: B,
    /// `None`: bytes are passed on as they come, and no boundary is known.
    framing: Option<Framing>,
    /// Beginning of a packet, held back.
    held: Vec<u8>,
    to_broker: Rest,
    /// Bytes of a packet begun earlier that stand at the beginning of `to_broker`.
    to_broker_inside: u64,
    to_device: Rest,
    device_ended: bool,
    broker_ended: bool,
    flush_device: bool,
    limits: PumpLimits,
    /// Runs while a side does not take what there is, or after the device has left.
    timer: Option<Pin<Box<Sleep>>>,
    moved: (u64, u64),
    moved_at_timer: (u64, u64),
}

impl<D, B> Pump<D, B>
where
    D: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    /// Connects the two. `first` goes to the broker before anything else: a PROXY
    /// header. With `framed` the device speaks MQTT, and [`Pump::cut`] can
    /// say DISCONNECT in its name.
    pub fn new(device: D, broker: B, first: Vec<u8>, framed: bool, limits: PumpLimits) -> Self {
        Self {
            device,
            broker,
            framing: framed.then(Framing::default),
            held: Vec::new(),
            // The header is no MQTT: for the framing it is the rest of a packet.
            to_broker_inside: first.len() as u64,
            to_broker: Rest { bytes: first, written: 0 },
            to_device: Rest::default(),
            device_ended: false,
            broker_ended: false,
            flush_device: false,
            limits,
            timer: None,
            moved: (0, 0),
            moved_at_timer: (0, 0),
        }
    }

    /// Bytes passed on to the broker and to the device.
    pub const fn moved(&self) -> (u64, u64) {
        self.moved
    }

    /// Carries until one side ends.
    ///
    /// # Errors
    /// A side failed, or the device does not speak MQTT.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<End>> {
        let to_broker = self.poll_to_broker(cx)?;
        if self.poll_to_device(cx)?.is_ready() {
            return Poll::Ready(Ok(if self.device_ended { End::Device } else { End::Broker }));
        }
        self.poll_timer(cx, to_broker.is_ready())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, lingering: bool) -> Poll<io::Result<End>> {
        if !lingering && self.to_broker.is_empty() && self.to_device.is_empty() && !self.flush_device {
            self.timer = None;
            return Poll::Pending;
        }
        let limit = if lingering { self.limits.linger } else { self.limits.stall };
        let timer = self.timer.get_or_insert_with(|| {
            self.moved_at_timer = self.moved;
            Box::pin(tokio::time::sleep(limit))
        });
        while timer.as_mut().poll(cx).is_ready() {
            if lingering {
                return Poll::Ready(Ok(End::Device));
            }
            if self.moved == self.moved_at_timer {
                return Poll::Ready(Ok(End::Stalled));
            }
            self.moved_at_timer = self.moved;
            timer.as_mut().reset(Instant::now() + limit);
        }
        Poll::Pending
    }

    /// Ready once the device has left and the broker knows.
    fn poll_to_broker(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_rest_to_broker(cx))?;
            if self.device_ended {
                return Pin::new(&mut self.broker).poll_shutdown(cx);
            }
            ready!(BUFFER.with_borrow_mut(|buffer| self.poll_read_device(cx, buffer)))?;
        }
    }

    fn poll_rest_to_broker(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.to_broker.is_empty() {
            let written = ready!(Pin::new(&mut self.broker).poll_write(cx, self.to_broker.left()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.moved.0 += written as u64;
            self.to_broker.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_device(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<()>> {
        let held = self.held.len();
        let mut read = ReadBuf::new(&mut buffer[held..]);
        match ready!(Pin::new(&mut self.device).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => {}
            // Without close_notify it is an end as well: devices are switched off.
            Ok(()) => self.device_ended = true,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.device_ended = true,
            Err(error) => return Poll::Ready(Err(error)),
        }
        if self.device_ended {
            // It may run as the limit of a stall; lingering has its own.
            self.timer = None;
            return Poll::Ready(Ok(()));
        }
        let filled = held + read.filled().len();
        buffer[..held].copy_from_slice(&self.held);
        let offered = &buffer[..filled];
        let inside = self.framing.as_ref().map_or(0, Framing::inside);
        let passed = match &mut self.framing {
            Some(framing) => framing.complete(offered).map_err(not_mqtt)?,
            None => filled,
        };
        self.held = offered[passed..].to_vec();
        let (passed, mut written) = (&offered[..passed], 0);
        while written < passed.len() {
            match Pin::new(&mut self.broker).poll_write(cx, &passed[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(more)) => written += more,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.to_broker = Rest { bytes: passed.to_vec(), written };
                    self.to_broker_inside = inside;
                    break;
                }
            }
        }
        self.moved.0 += written as u64;
        Poll::Ready(Ok(()))
    }

    /// Ready once the broker has closed and the device has everything.
    fn poll_to_device(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.to_device.is_empty() {
                let written = ready!(Pin::new(&mut self.device).poll_write(cx, self.to_device.left()))?;
                self.moved.1 += written as u64;
                self.to_device.advance(written);
            }
            if self.flush_device {
                ready!(Pin::new(&mut self.device).poll_flush(cx))?;
                self.flush_device = false;
            }
            if self.broker_ended {
                return Pin::new(&mut self.device).poll_shutdown(cx);
            }
            ready!(BUFFER.with_borrow_mut(|buffer| self.poll_read_broker(cx, buffer)))?;
        }
    }

    fn poll_read_broker(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<()>> {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.broker).poll_read(cx, &mut read))?;
        let bytes = read.filled();
        self.broker_ended = bytes.is_empty();
        let mut written = 0;
        while written < bytes.len() {
            self.flush_device = true;
            match Pin::new(&mut self.device).poll_write(cx, &bytes[written..]) {
                Poll::Ready(Ok(more)) => written += more,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.to_device = Rest { bytes: bytes.to_vec(), written };
                    break;
                }
            }
        }
        self.moved.1 += written as u64;
        Poll::Ready(Ok(()))
    }

    /// Takes the two sides apart. Of what the device has sent, the broker gets no more
    /// than the end of a packet that it has in part. With `disconnect` it is told that
    /// the device leaves properly, so that it forgets the last will; see
    /// [`BrokerEnd::tells`] for when that cannot be.
    pub fn cut(self, disconnect: bool) -> (D, BrokerEnd<B>) {
        let mut rest = self.to_broker;
        let boundary = match (&self.framing, self.device_ended) {
            (Some(framing), false) if rest.is_empty() => (framing.inside() == 0).then_some(0),
            (Some(_), false) => boundary_after(self.to_broker_inside, &rest.bytes, rest.written),
            _ => None,
        };
        let tells = match boundary.filter(|_| disconnect) {
            Some(boundary) => {
                rest.bytes.truncate(boundary);
                rest.bytes.extend_from_slice(&DISCONNECT);
                true
            }
            None => {
                rest = Rest::default();
                false
            }
        };
        (self.device, BrokerEnd { broker: self.broker, rest, tells })
    }
}

/// The broker's side after a cut.
#[derive(Debug)]
pub struct BrokerEnd<B> {
    broker: B,
    rest: Rest,
    tells: bool,
}

impl<B: AsyncRead + AsyncWrite + Unpin> BrokerEnd<B> {
    /// Whether DISCONNECT is what the broker gets last. Not so inside a packet longer
    /// than [`HOLD`], without framing, and after the device has left by itself.
    pub const fn tells(&self) -> bool {
        self.tells
    }

    /// Writes what is left for the broker. Safe to cancel and to call again. Set a
    /// limit of time around it.
    ///
    /// # Errors
    /// The broker is gone, which ends it as well.
    pub async fn finish(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            match self.broker.write(self.rest.left()).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => self.rest.advance(written),
            }
        }
        Ok(())
    }

    /// Reads and forgets until the broker closes, as it does after DISCONNECT. A
    /// socket that is closed with unread bytes sends a reset, which may overtake the
    /// DISCONNECT in the broker. Set a limit of time around it.
    ///
    /// # Errors
    /// The broker is gone, which ends it as well.
    pub async fn outlast(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                loop {
                    let mut read = ReadBuf::new(buffer);
                    ready!(Pin::new(&mut self.broker).poll_read(cx, &mut read))?;
                    if read.filled().is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                }
            })
        })
        .await
    }
}

fn not_mqtt(error: NotMqtt) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
