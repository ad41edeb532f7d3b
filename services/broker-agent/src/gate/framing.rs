//! Where MQTT packets end: as much of the protocol as the gate needs to speak to the
//! broker at a packet boundary.
//!
//! ```text
//! bytes of the device ─▶ whole packets, passed on │ the beginning of one, held back
//! ```
//!
//! A device that was cut in the middle of a packet never sends the rest, and a
//! DISCONNECT inside a packet is payload. Packets up to [`HOLD`] bytes are therefore
//! passed on whole or not at all; longer ones stream, and during those there is no
//! boundary. Both MQTT 3.1.1 and 5 have the same fixed header (§2.1 of either).

/// Longest packet that is held back until it is whole: memory that a device which
/// never finishes its packet can pin.
pub const HOLD: usize = 16 * 1024;

/// DISCONNECT, normal disconnection, in MQTT 3.1.1 and 5: the broker forgets the last
/// will.
pub const DISCONNECT: [u8; 2] = [0xe0, 0x00];

/// First byte of CONNECT.
pub const CONNECT: u8 = 0x10;

/// The bytes cannot be MQTT: a remaining length of more than four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the remaining length of a packet is malformed")]
pub struct NotMqtt;

/// Follows one direction of a connection.
#[derive(Debug, Default)]
pub struct Framing {
    /// Bytes still to come of a packet that was passed on in part.
    inside: u64,
}

impl Framing {
    /// How many of `bytes` can be passed on. The caller MUST pass exactly those on,
    /// in order, and offer the others again with what follows them.
    ///
    /// # Errors
    /// [`NotMqtt`]: close the connection.
    pub fn complete(&mut self, bytes: &[u8]) -> Result<usize, NotMqtt> {
        let mut end = take(&mut self.inside, bytes.len());
        while let Some(length) = packet_length(&bytes[end..])? {
            let rest = bytes.len() - end;
            if let Some(missing) = length.checked_sub(rest as u64).filter(|missing| *missing > 0) {
                if length <= HOLD as u64 {
                    break;
                }
                self.inside = missing;
                return Ok(bytes.len());
            }
            // Not above `rest`, as was just compared.
            end += usize::try_from(length).unwrap_or(rest);
        }
        Ok(end)
    }

    /// Bytes still to come of the packet that was passed on in part; 0 at a packet
    /// boundary.
    #[must_use]
    pub const fn inside(&self) -> u64 {
        self.inside
    }
}

/// The first packet boundary in `passed` at or after `offset`, where `inside` bytes of
/// an earlier packet stand at its beginning. `None` where its last packet goes on
/// behind it.
#[must_use]
pub fn boundary_after(inside: u64, passed: &[u8], offset: usize) -> Option<usize> {
    let mut inside = inside;
    let mut end = take(&mut inside, passed.len());
    if inside > 0 {
        return None;
    }
    while end < offset {
        let length = packet_length(&passed[end..]).ok()??;
        end = end.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= passed.len())?;
    }
    Some(end)
}

/// Counts `inside` down by what is there of it; gives how much that is.
fn take(inside: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*inside).unwrap_or(usize::MAX).min(available);
    *inside -= taken as u64;
    taken
}

/// Length of the packet that begins `bytes`, its header included; `None` where the
/// header is not whole.
fn packet_length(bytes: &[u8]) -> Result<Option<u64>, NotMqtt> {
    let mut remaining = 0_u64;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        remaining |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(remaining + index as u64 + 2));
        }
    }
    if bytes.len() > 4 { Err(NotMqtt) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: usize) -> Vec<u8> {
        let mut packet = vec![0x30];
        let mut remaining = payload;
        loop {
            let (low, high) = (u8::try_from(remaining & 0x7f).unwrap(), remaining >> 7);
            packet.push(if high > 0 { low | 0x80 } else { low });
            remaining = high;
            if high == 0 {
                break;
            }
        }
        packet.resize(packet.len() + payload, 7);
        packet
    }

    #[test]
    fn small_packets_are_passed_on_whole_wherever_reads_break() {
        let stream: Vec<u8> = [0, 1, 127, 128, 5000, 3].into_iter().flat_map(packet).collect();
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let (mut framing, mut offered, mut passed) = (Framing::default(), Vec::new(), Vec::new());
            for chunk in stream.chunks(step) {
                offered.extend_from_slice(chunk);
                let end = framing.complete(&offered).unwrap();
                passed.extend(offered.drain(..end));
                assert_eq!(framing.inside(), 0, "step {step}");
                assert_eq!(boundary_after(0, &passed, passed.len()), Some(passed.len()), "step {step}");
            }
            assert_eq!(passed, stream, "step {step}");
        }
    }

    #[test]
    fn a_long_packet_streams_and_its_end_is_a_boundary() {
        let (long, mut framing) = (packet(HOLD * 3), Framing::default());
        assert_eq!(framing.complete(&long[..HOLD]), Ok(HOLD));
        assert_eq!(framing.inside(), (long.len() - HOLD) as u64);
        let mut rest = long[HOLD..].to_vec();
        let end_of_long = rest.len();
        rest.extend(packet(2));
        rest.push(0x30);
        assert_eq!(framing.complete(&rest), Ok(end_of_long + 4));
        assert_eq!(framing.inside(), 0);
    }

    #[test]
    fn a_write_that_broke_off_is_continued_to_the_end_of_its_packet() {
        let passed = [packet(10), packet(20), packet(30)].concat();
        assert_eq!(boundary_after(0, &passed, 0), Some(0));
        assert_eq!(boundary_after(0, &passed, 1), Some(12));
        assert_eq!(boundary_after(0, &passed, 12), Some(12));
        assert_eq!(boundary_after(0, &passed, 13), Some(34));
        assert_eq!(boundary_after(12, &passed, 5), Some(12));
        assert_eq!(boundary_after(67, &passed, 5), None);
        assert_eq!(boundary_after(0, &passed[..50], 40), None);
    }

    #[test]
    fn a_length_of_five_bytes_is_refused() {
        assert_eq!(Framing::default().complete(&[0x10, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(NotMqtt));
        assert_eq!(Framing::default().complete(&[0x10, 0xff, 0xff, 0xff]), Ok(0));
    }
}
