//! Randomness of the system.

use ring::rand::{SecureRandom as _, SystemRandom};

/// Random bytes; none where the system gives none, which the log tells.
pub fn bytes<const LENGTH: usize>() -> Vec<u8> {
    let mut bytes = [0; LENGTH];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => bytes.to_vec(),
        Err(_) => {
            tracing::error!("the system gives no randomness");
            Vec::new()
        }
    }
}
