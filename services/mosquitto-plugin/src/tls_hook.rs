//! The hook into the broker's TLS handshakes.
//!
//! The broker reads its `cafile` once, so that its own verification goes on accepting
//! what has become inactive, and refuses what was registered later.
//! OpenSSL tells us of every SSL object that is made; there we put our verification in
//! the place of its own. A context that the broker builds anew on SIGHUP is caught the
//! same way.

use std::ffi::{c_int, c_long, c_void};
use std::panic::catch_unwind;

use catrust_device_trust::Refusal;

use crate::host::mosquitto::{Level, log};
use crate::host::openssl::{self, ServerSsl, Verification};
use crate::plugin;

/// Starts to verify the devices of all listeners; says whether OpenSSL lets us.
pub fn install() -> bool {
    openssl::on_new_ssl(on_new_ssl)
}

unsafe extern "C" fn on_new_ssl(
    ssl: *mut c_void,
    _pointer: *mut c_void,
    _data: *mut c_void,
    _index: c_int,
    _argl: c_long,
    _argp: *mut c_void,
) {
    // The callback goes in first and without a lock: where anything behind it fails,
    // devices are verified by us, and refused.
    // SAFETY: OpenSSL calls this with the object that it is making.
    let Some(ssl) = (unsafe { ServerSsl::new(ssl) }) else { return };
    ssl.verify_by(verify);
    let resumption = catch_unwind(|| plugin::with(|engine| engine.options().resumption));
    if !matches!(resumption, Ok(Some(true))) {
        ssl.refuse_resumption();
    }
}

unsafe extern "C" fn verify(verification: *mut Verification, _argument: *mut c_void) -> c_int {
    // SAFETY: OpenSSL calls this with the verification that it wants done.
    let verdict = catch_unwind(|| unsafe { check(verification) });
    let (code, accepted) = match verdict {
        Ok(Ok(())) => (openssl::V_OK, 1),
        Ok(Err(refusal)) => (error_code(refusal), 0),
        // A panic: nothing is known, so nothing is accepted.
        Err(_) => (openssl::V_ERR_APPLICATION, 0),
    };
    // SAFETY: as above.
    unsafe { openssl::set_error(verification, code) };
    accepted
}

/// # Safety
/// As for [`openssl::shown`].
unsafe fn check(verification: *const Verification) -> Result<(), Refusal> {
    // SAFETY: the caller vouches for it.
    let shown = unsafe { openssl::shown(verification) }.ok_or(Refusal::Malformed)?;
    let verdict =
        plugin::with(|engine| engine.handshake(&shown, plugin::now())).unwrap_or(Err(Refusal::Stale));
    if let Err(refusal) = verdict {
        log(Level::Info, &format!("a TLS handshake is refused: {refusal}"));
    }
    verdict
}

const fn error_code(refusal: Refusal) -> c_int {
    match refusal {
        Refusal::Malformed | Refusal::OldVersion | Refusal::ChainTooLong => openssl::V_ERR_REJECTED,
        Refusal::UnknownIssuer => openssl::V_ERR_UNKNOWN_ISSUER,
        Refusal::Inactive => openssl::V_ERR_REVOKED,
        Refusal::Expired => openssl::V_ERR_EXPIRED,
        Refusal::WrongPurpose => openssl::V_ERR_PURPOSE,
        // Stale, too costly, and what a later version may add.
        _ => openssl::V_ERR_APPLICATION,
    }
}
