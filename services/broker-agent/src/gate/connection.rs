//! One device's connection, from the accepted socket to its end.
//!
//! ```text
//! handshake + admission ─▶ wait for CONNECT ─▶ connect to the broker ─▶ relay
//!                              └──────────── cut, at any point ──────────┴─▶ end both sides
//! ```
//!
//! The broker is connected to only when an admitted device has sent something, so that
//! neither refused devices nor idle ones cost it anything.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use rustls::HandshakeKind;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::framing::CONNECT;
use super::pace::Pace;
use super::proxy_header;
use super::pump::{End, Pump, PumpLimits};
use super::settings::{GateSettings, LastWill};
use super::upstream::Upstream;
use super::{CLOSE_LIMIT, GateParts};
use crate::session::{Cause, Cut, Session};
use crate::tls_front::AcceptError;

type Device = TlsStream<TcpStream>;

/// Bytes that may wait in rustls for a device that does not read: its default is
/// 64 KiB.
const DEVICE_BUFFER: usize = 16 * 1024;

/// Serves one connection to its end. `handshaking` is given back once the handshake
/// is over.
pub async fn serve(
    parts: Arc<GateParts>,
    stream: TcpStream,
    peer: SocketAddr,
    handshaking: OwnedSemaphorePermit,
) {
    // Boxed, and gone afterwards: a handshake's state would otherwise be part of each
    // idle session's task.
    let Some((device, session)) = Box::pin(accept(&parts, stream, handshaking)).await else { return };
    let Some((device, mut session, broker)) = Box::pin(reach_broker(&parts, device, session)).await else {
        return;
    };
    let first = match parts.settings.proxy_protocol {
        Some(_) => proxy_first(&device, &session, peer),
        None => Vec::new(),
    };
    let mut pump = Box::new(Pump::new(device, broker, first, parts.framed(), limits(&parts.settings)));
    let outcome = std::future::poll_fn(|cx| match session.poll_cut(cx) {
        Poll::Ready(cut) => Poll::Ready(Ok(Err(cut))),
        Poll::Pending => pump.poll(cx).map_ok(Ok),
    })
    .await;
    let (to_broker, to_device) = pump.moved();
    parts.metrics.bytes_to_broker.add(to_broker);
    parts.metrics.bytes_to_devices.add(to_device);
    match outcome {
        Ok(Err(cut)) => Box::pin(end(&parts, *pump, session, &cut)).await,
        Ok(Ok(End::Stalled)) => parts.metrics.stalled.one(),
        Ok(Ok(End::Device | End::Broker)) => {}
        Err(error) => tracing::debug!(%peer, %error, "the session ended with an error"),
    }
}

async fn accept(
    parts: &GateParts,
    stream: TcpStream,
    _handshaking: OwnedSemaphorePermit,
) -> Option<(Device, Session)> {
    let metrics = &parts.metrics;
    match timeout(parts.settings.handshake_timeout, parts.front.accept(stream)).await {
        Ok(Ok((mut device, session))) => {
            let connection = device.get_mut().1;
            connection.set_buffer_limit(Some(DEVICE_BUFFER));
            match connection.handshake_kind() {
                Some(HandshakeKind::Resumed) => metrics.handshakes_resumed.one(),
                _ => metrics.handshakes_full.one(),
            }
            return Some((device, session));
        }
        Ok(Err(AcceptError::Refused(refusal))) => {
            metrics.refused_after_handshake.one();
            tracing::debug!(reason = refusal.as_str(), "refused after the handshake");
        }
        Ok(Err(AcceptError::Handshake(error))) => {
            metrics.handshakes_failed.one();
            tracing::debug!(%error, "handshake failed");
        }
        Err(_) => metrics.handshakes_timed_out.one(),
    }
    None
}

/// Waits for the device's first bytes and connects to the broker; a cut ends it.
async fn reach_broker(
    parts: &GateParts,
    mut device: Device,
    mut session: Session,
) -> Option<(Device, Session, Upstream)> {
    let cut = tokio::select! {
        biased;
        cut = session.cut() => cut,
        ready = wait_and_connect(parts, &mut device) => match ready {
            Some(broker) => return Some((device, session, broker)),
            None => {
                close(device).await;
                return None;
            }
        }
    };
    if fence(&parts.pace, &session, &cut) {
        parts.pace.wait().await;
    }
    close(device).await;
    None
}

async fn wait_and_connect(parts: &GateParts, device: &mut Device) -> Option<Upstream> {
    let settings = &parts.settings;
    match timeout(settings.connect_timeout, device.fill_buf()).await {
        // The bytes stay in the device's buffer for the relay.
        Ok(Ok([first, ..])) if *first == CONNECT || !parts.framed() => {}
        _ => {
            parts.metrics.no_connect.one();
            return None;
        }
    }
    let connected = timeout(settings.upstream_timeout, settings.upstream.connect()).await;
    let error = match connected {
        Ok(Ok(broker)) => return Some(broker),
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    parts.metrics.broker_unreachable.one();
    tracing::warn!(upstream = %settings.upstream, %error, "the broker cannot be reached");
    None
}

fn proxy_first(device: &Device, session: &Session, peer: SocketAddr) -> Vec<u8> {
    let (stream, connection) = device.get_ref();
    // A socket that is closed already has no address; its relay ends at once.
    let gate = stream.local_addr().unwrap_or(peer);
    proxy_header::header(peer, gate, connection.protocol_version(), &session.path().user_name)
}

/// Ends both sides after a cut. Neither side is waited for before the device is out: a
/// receipt must not depend on who is slow.
async fn end(parts: &GateParts, pump: Pump<Device, Upstream>, session: Session, cut: &Cut) {
    let suppress = match (cut.cause, parts.settings.last_will) {
        // The broker shall see what it would see without a gate: connections that end.
        (Cause::Draining, _) | (_, LastWill::Send) => false,
        (_, LastWill::Suppress) | (Cause::Expired, LastWill::Follow) => true,
        (Cause::Distrusted { with_will }, LastWill::Follow) => !with_will,
    };
    let (device, mut broker) = pump.cut(suppress);
    if broker.tells() {
        parts.metrics.wills_suppressed.one();
    } else if suppress {
        tracing::warn!("cut inside a packet: the broker publishes the last will");
    }
    // As a rule this is all: the bytes fit into the socket's buffer.
    let finished = at_once(broker.finish()).await;
    if fence(&parts.pace, &session, cut) {
        parts.pace.wait().await;
    }
    close(device).await;
    drop(session);
    if !finished {
        let _ = timeout(CLOSE_LIMIT, broker.finish()).await;
    }
    if broker.tells() {
        let _ = timeout(CLOSE_LIMIT, broker.outlast()).await;
    }
}

/// Where closing is paced, says that nothing is passed on any more, so that receipts
/// do not wait for the pace. A drain has a pace of its own.
fn fence(pace: &Pace, session: &Session, cut: &Cut) -> bool {
    let paced = pace.is_limited() && cut.cause != Cause::Draining;
    if paced {
        session.fence();
    }
    paced
}

/// Closes, with close_notify if the device takes it now.
async fn close(mut device: Device) {
    at_once(device.shutdown()).await;
}

/// Polls once; gives whether that was enough.
async fn at_once(future: impl Future) -> bool {
    tokio::pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

const fn limits(settings: &GateSettings) -> PumpLimits {
    PumpLimits { stall: settings.stall_timeout, linger: settings.linger_timeout }
}
