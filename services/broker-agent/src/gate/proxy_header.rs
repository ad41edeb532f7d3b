//! The PROXY protocol header, version 2, with the facts of the device's TLS
//! connection: for brokers that take the user name from the certificate.
//!
//! The certificate itself is not sent: Mosquitto takes no more than 500 bytes of
//! header.

use std::net::{IpAddr, SocketAddr};

use rustls::ProtocolVersion;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const PP2_TYPE_SSL: u8 = 0x20;
const PP2_SUBTYPE_SSL_VERSION: u8 = 0x21;
const PP2_SUBTYPE_SSL_CN: u8 = 0x22;
/// TLS, a certificate on this connection, a certificate in this session. The second
/// is set for resumed sessions as well: the gate checks the certificate of those as it
/// does for others, and brokers refuse a device without it.
const CLIENT: u8 = 0x07;

/// Makes the header of one connection. `user_name` goes where brokers look for the
/// certificate's common name.
#[must_use]
pub fn header(
    device: SocketAddr,
    gate: SocketAddr,
    version: Option<ProtocolVersion>,
    user_name: &str,
) -> Vec<u8> {
    let mut tls = vec![CLIENT];
    tls.extend_from_slice(&0_u32.to_be_bytes());
    let version = match version {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    push_field(&mut tls, PP2_SUBTYPE_SSL_VERSION, version.as_bytes());
    push_field(&mut tls, PP2_SUBTYPE_SSL_CN, user_name.as_bytes());
    let (family, mut body) = addresses(device, gate);
    push_field(&mut body, PP2_TYPE_SSL, &tls);

    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[VERSION_COMMAND, family]);
    header.extend_from_slice(&length(&body));
    header.extend_from_slice(&body);
    header
}

/// Family and addresses. An IPv4 address that a listener on `::` gives in its IPv6 form is sent as
/// IPv4.
fn addresses(device: SocketAddr, gate: SocketAddr) -> (u8, Vec<u8>) {
    let mut body = Vec::with_capacity(64);
    let family = match (device.ip().to_canonical(), gate.ip().to_canonical()) {
        (IpAddr::V4(device), IpAddr::V4(gate)) => {
            body.extend_from_slice(&device.octets());
            body.extend_from_slice(&gate.octets());
            TCP_OVER_IPV4
        }
        (device, gate) => {
            for address in [device, gate] {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                body.extend_from_slice(&address.octets());
            }
            TCP_OVER_IPV6
        }
    };
    body.extend_from_slice(&device.port().to_be_bytes());
    body.extend_from_slice(&gate.port().to_be_bytes());
    (family, body)
}

fn push_field(bytes: &mut Vec<u8>, kind: u8, value: &[u8]) {
    bytes.push(kind);
    bytes.extend_from_slice(&length(value));
    bytes.extend_from_slice(value);
}

/// All that is sent is far below 64 KiB: the only part from outside is bounded.
fn length(value: &[u8]) -> [u8; 2] {
    u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let header = header(
            "192.0.2.7:50000".parse().unwrap(),
            "192.0.2.1:8883".parse().unwrap(),
            Some(ProtocolVersion::TLSv1_2),
            "dev",
        );
        let expected = [
            b"\r\n\r\n\0\r\nQUIT\n".as_slice(),
            &[0x21, 0x11, 0, 36],
            &[192, 0, 2, 7, 192, 0, 2, 1, 0xc3, 0x50, 0x22, 0xb3],
            &[0x20, 0, 21, 0x07, 0, 0, 0, 0],
            b"\x21\0\x07TLSv1.2",
            b"\x22\0\x03dev",
        ]
        .concat();
        assert_eq!(header, expected);
    }

    #[test]
    fn families_are_not_mixed_and_mapped_addresses_are_ipv4() {
        let header = |device: &str| {
            header(device.parse().unwrap(), "[2001:db8::1]:1".parse().unwrap(), None, "dev")[13]
        };
        assert_eq!(header("[2001:db8::2]:5"), TCP_OVER_IPV6);
        assert_eq!(header("192.0.2.1:5"), TCP_OVER_IPV6);
        let mapped = addresses("[::ffff:192.0.2.7]:5".parse().unwrap(), "192.0.2.1:6".parse().unwrap());
        assert_eq!(mapped, (TCP_OVER_IPV4, vec![192, 0, 2, 7, 192, 0, 2, 1, 0, 5, 0, 6]));
    }

    #[test]
    fn the_longest_header_fits_what_mosquitto_takes() {
        let (device, gate) = ("[2001:db8::2]:5".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        // The longest user name there is.
        let name = "n".repeat(256);
        assert!(header(device, gate, None, &name).len() <= 500);
    }
}
