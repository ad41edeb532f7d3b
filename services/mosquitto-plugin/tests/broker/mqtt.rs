//! As much MQTT as devices and agents of these tests need.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const SUBACK: u8 = 9;
pub const PINGRESP: u8 = 13;
pub const DISCONNECT: u8 = 14;

/// What a client says at CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    pub client_id: String,
    pub user_name: Option<String>,
    pub password: Option<String>,
    /// Topic and payload of the last will.
    pub will: Option<(String, String)>,
    /// 4 for MQTT 3.1.1, 5 for MQTT 5.
    pub version: u8,
    pub clean: bool,
    /// MQTT 5: method of an enhanced authentication.
    pub authentication_method: Option<String>,
}

impl Connect {
    pub fn new(client_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            user_name: None,
            password: None,
            will: None,
            version: 4,
            clean: true,
            authentication_method: None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        let mut payload = text(&self.client_id);
        if let Some((topic, message)) = &self.will {
            flags |= 1 << 2;
            if self.version == 5 {
                payload.push(0);
            }
            payload.extend(text(topic));
            payload.extend(text(message));
        }
        if let Some(name) = &self.user_name {
            flags |= 1 << 7;
            payload.extend(text(name));
        }
        if let Some(password) = &self.password {
            flags |= 1 << 6;
            payload.extend(text(password));
        }
        let mut body = text("MQTT");
        // Keep-alive of 300 s: no test lasts so long.
        body.extend([self.version, flags, 1, 44]);
        if self.version == 5 {
            let mut properties = Vec::new();
            if let Some(method) = &self.authentication_method {
                properties.push(0x15);
                properties.extend(text(method));
            }
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend(properties);
        }
        body.extend(payload);
        packet(0x10, body)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub kind: u8,
    pub flags: u8,
    pub body: Vec<u8>,
}

pub fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

pub fn packet(first: u8, body: Vec<u8>) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let low = (length % 128) as u8;
        length /= 128;
        packet.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

pub fn publish(topic: &str, payload: &[u8], id: u16) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(id.to_be_bytes());
    body.extend(payload);
    packet(0x32, body)
}

pub fn subscribe(topic: &str, id: u16) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(text(topic));
    body.push(0);
    packet(0x82, body)
}

/// Identifier of a PUBLISH of QoS 1.
pub fn packet_id(packet: &Packet) -> u16 {
    let length = usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
    u16::from_be_bytes([packet.body[2 + length], packet.body[3 + length]])
}

/// Topic and payload of a PUBLISH of MQTT 3.1.1.
pub fn published(packet: &Packet) -> (String, Vec<u8>) {
    let length = usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
    let topic = String::from_utf8(packet.body[2..2 + length].to_vec()).unwrap();
    let id = if packet.flags & 0b0110 == 0 { 0 } else { 2 };
    (topic, packet.body[2 + length + id..].to_vec())
}

/// The next packet; `None` at the end of the connection.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Packet>> {
    let first = match stream.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Packet { kind: first >> 4, flags: first & 0x0f, body }))
}
