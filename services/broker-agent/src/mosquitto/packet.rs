//! As much MQTT 3.1.1 as the control topic needs: CONNECT, PUBLISH of QoS 1, PUBACK and
//! PINGREQ out; CONNACK, PUBLISH and the answers in.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Largest packet that the broker may send us; a response is a few hundred bytes.
const MAX_INCOMING: usize = 64 * 1024;
/// Largest remaining length that MQTT can spell.
const MAX_REMAINING: usize = 268_435_455;

/// PINGREQ.
pub const PING: [u8; 2] = [0xc0, 0];

/// What comes from the broker, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// CONNACK with its return code.
    Connected(u8),
    /// PUBLISH; with its identifier where it wants a PUBACK.
    Published {
        /// Topic.
        topic: String,
        /// Payload.
        payload: Vec<u8>,
        /// Packet identifier, for QoS 1.
        id: Option<u16>,
    },
    /// Anything else.
    Other,
}

/// The text, or the payload, does not fit into a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is too long for MQTT")]
pub struct TooLong;

/// CONNECT for a clean session.
pub fn connect(client_id: &str, user_name: &str, keep_alive: u16) -> Result<Vec<u8>, TooLong> {
    let mut body = text("MQTT")?;
    // Level 4 (3.1.1); flags: user name, clean session.
    body.extend([4, 0b1000_0010]);
    body.extend(keep_alive.to_be_bytes());
    body.extend(text(client_id)?);
    body.extend(text(user_name)?);
    packet(0x10, &body)
}

/// PUBLISH of QoS 1.
pub fn publish(topic: &str, payload: &[u8], id: u16) -> Result<Vec<u8>, TooLong> {
    let mut body = text(topic)?;
    body.extend(id.to_be_bytes());
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

/// PUBACK.
pub fn acknowledge(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

fn text(text: &str) -> Result<Vec<u8>, TooLong> {
    let length = u16::try_from(text.len()).map_err(|_| TooLong)?;
    Ok([&length.to_be_bytes(), text.as_bytes()].concat())
}

fn packet(first: u8, body: &[u8]) -> Result<Vec<u8>, TooLong> {
    let mut length = body.len();
    if length > MAX_REMAINING {
        return Err(TooLong);
    }
    let mut packet = vec![first];
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    Ok(packet)
}

/// Reads the next packet. Not cancel safe.
///
/// # Errors
/// The connection is at its end or broken, or the peer does not speak MQTT.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Incoming> {
    let first = stream.read_u8().await?;
    let mut body = vec![0; remaining_length(stream).await?];
    stream.read_exact(&mut body).await?;
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a malformed packet");
    match first >> 4 {
        2 => body.get(1).copied().map(Incoming::Connected).ok_or_else(malformed),
        3 => published(first, &body).ok_or_else(malformed),
        _ => Ok(Incoming::Other),
    }
}

async fn remaining_length(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let limit = || io::Error::new(io::ErrorKind::InvalidData, "a packet over the limit");
            return if length <= MAX_INCOMING { Ok(length) } else { Err(limit()) };
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "a malformed length"))
}

fn published(first: u8, body: &[u8]) -> Option<Incoming> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let topic = String::from_utf8(topic.to_vec()).ok()?;
    let (id, payload) = if first & 0b0110 == 0 {
        (None, rest)
    } else {
        let (id, payload) = rest.split_first_chunk::<2>()?;
        (Some(u16::from_be_bytes(*id)), payload)
    };
    Some(Incoming::Published { topic, payload: payload.to_vec(), id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_published_is_read() {
        for length in [0, 1, 127, 128, 20_000] {
            let payload = vec![7; length];
            let packet = publish("a/b", &payload, 259).unwrap();
            let read = read(&mut packet.as_slice()).await.unwrap();
            assert_eq!(read, Incoming::Published { topic: "a/b".to_owned(), payload, id: Some(259) });
        }
    }

    #[tokio::test]
    async fn a_publish_of_qos_0_has_no_identifier() {
        let bytes = [0x30, 4, 0, 1, b'a', 9];
        let read = read(&mut bytes.as_slice()).await.unwrap();
        assert_eq!(read, Incoming::Published { topic: "a".to_owned(), payload: vec![9], id: None });
    }

    #[tokio::test]
    async fn what_is_no_mqtt_is_an_error() {
        for bytes in [
            &[][..],
            &[0x20],
            &[0x20, 2, 0],
            &[0x20, 1, 0],
            &[0x20, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x30, 0xff, 0xff, 0x7f],
            &[0x30, 1, 0],
            &[0x30, 3, 0, 9, b'a'],
            &[0x32, 4, 0, 1, b'a', 0],
        ] {
            assert!(read(&mut &*bytes).await.is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn packets_are_spelt_as_mqtt_3_1_1_wants_it() {
        let expected = [&b"\x10\x11\0\x04MQTT\x04\x82\0\x3c\0\x01c\0\x02us"[..]].concat();
        assert_eq!(connect("c", "us", 60).unwrap(), expected);
        assert_eq!(acknowledge(259), [0x40, 2, 1, 3]);
        assert_eq!(connect(&"x".repeat(65_536), "u", 60), Err(TooLong));
    }
}
