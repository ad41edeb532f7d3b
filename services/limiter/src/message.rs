//! What replicas tell each other: who spent how much since the last message.
//!
//! `protobuf ‖ BLAKE3 in keyed mode (32 bytes)`. The key comes from the signing key, which
//! the replicas share and nobody else has, so that nobody else can charge a user. Users
//! are numbers, hashes under such a key too: short, and nobody learns who calls. About 10
//! bytes per user.

use prost::Message as _;

/// Most users in one message.
pub(super) const MOST_USERS: usize = 4_096;
/// Most replicas that one replica remembers, and answers.
pub(super) const MOST_PEERS: usize = 256;
const SEAL: usize = 32;
/// Largest message: 9 bytes and a count for each user, 21 for each peer.
const MOST_BYTES: usize = 14 * MOST_USERS + 24 * MOST_PEERS + 64 + SEAL;

/// What one replica says.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Spending {
    /// Who says it: a number drawn at start, so that a replica that was started again is
    /// another one.
    #[prost(fixed64, tag = "1")]
    pub from: u64,
    /// Numbers the messages of one replica, from 1.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// The last word of a replica that stops.
    #[prost(bool, tag = "3")]
    pub leaving: bool,
    /// What it has heard. To be named here with a recent number is what makes a message
    /// fresh: no clocks are compared.
    #[prost(message, repeated, tag = "4")]
    pub heard: Vec<Acknowledgement>,
    /// Users who spent something.
    #[prost(fixed64, repeated, tag = "5")]
    pub users: Vec<u64>,
    /// How many calls each of `users` spent, in the same order.
    #[prost(uint32, repeated, tag = "6")]
    pub calls: Vec<u32>,
}

/// The last message that was heard of a replica.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Acknowledgement {
    #[prost(fixed64, tag = "1")]
    pub from: u64,
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
}

impl Spending {
    /// The bytes for the wire.
    pub fn seal(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut bytes = self.encode_to_vec();
        let seal = blake3::keyed_hash(key, &bytes);
        bytes.extend_from_slice(seal.as_bytes());
        bytes
    }

    /// Reads what came; `None` for anything that no replica with this key would send.
    pub fn open(bytes: &[u8], key: &[u8; 32]) -> Option<Self> {
        if bytes.len() > MOST_BYTES {
            return None;
        }
        let (body, seal) = bytes.split_last_chunk::<SEAL>()?;
        // Compared in constant time.
        if blake3::keyed_hash(key, body) != *seal {
            return None;
        }
        let message = Self::decode(body).ok()?;
        let well_formed = message.users.len() == message.calls.len()
            && message.users.len() <= MOST_USERS
            && message.heard.len() <= MOST_PEERS;
        well_formed.then_some(message)
    }

    /// Each user and what it spent.
    pub fn spent(&self) -> impl Iterator<Item = (u64, u32)> {
        self.users.iter().copied().zip(self.calls.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn largest() -> Spending {
        Spending {
            from: u64::MAX,
            sequence: u64::MAX,
            leaving: true,
            heard: vec![Acknowledgement { from: u64::MAX, sequence: u64::MAX }; MOST_PEERS],
            users: vec![u64::MAX; MOST_USERS],
            calls: vec![u32::MAX; MOST_USERS],
        }
    }

    #[test]
    fn the_largest_message_is_read_and_a_larger_one_is_not() {
        let sealed = largest().seal(&KEY);
        assert!(sealed.len() <= MOST_BYTES, "{}", sealed.len());
        assert_eq!(Spending::open(&sealed, &KEY), Some(largest()));
        let mut more = largest();
        more.users.push(1);
        more.calls.push(1);
        assert_eq!(Spending::open(&more.seal(&KEY), &KEY), None);
        assert_eq!(Spending::open(&vec![0; 1 << 20], &KEY), None);
    }

    #[test]
    fn a_user_takes_about_ten_bytes() {
        let message = Spending { users: (0..1_000).collect(), calls: vec![25; 1_000], ..Spending::default() };
        assert!(message.seal(&KEY).len() < 9_100);
    }

    #[test]
    fn another_key_and_unequal_lists_are_refused() {
        let message = Spending { users: vec![1], calls: vec![2], ..Spending::default() };
        assert_eq!(Spending::open(&message.seal(&[8; 32]), &KEY), None);
        let lame = Spending { calls: vec![], ..message };
        assert_eq!(Spending::open(&lame.seal(&KEY), &KEY), None);
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Spending::open(&bytes, &KEY), None);
        }

        #[test]
        fn a_changed_bit_is_noticed(at in 0..60_usize, bit in 0..8_u8) {
            let message = Spending { from: 1, sequence: 2, users: vec![3], calls: vec![4], ..Spending::default() };
            let mut sealed = message.seal(&KEY);
            let at = at % sealed.len();
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(Spending::open(&sealed, &KEY), None);
        }

        #[test]
        fn sealed_garbage_harms_nobody(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut sealed = body.clone();
            sealed.extend_from_slice(blake3::keyed_hash(&KEY, &body).as_bytes());
            // Whatever it is read as, its lists fit.
            if let Some(message) = Spending::open(&sealed, &KEY) {
                prop_assert_eq!(message.users.len(), message.calls.len());
            }
        }
    }
}
