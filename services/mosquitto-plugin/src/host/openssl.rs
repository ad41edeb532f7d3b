//! The broker's OpenSSL, as far as it is public.

use std::ffi::{c_int, c_long, c_void};

/// `SSL_CTX`.
#[repr(C)]
#[derive(Debug)]
pub struct Context {
    _opaque: [u8; 0],
}

/// `SSL`.
#[repr(C)]
#[derive(Debug)]
pub struct Ssl {
    _opaque: [u8; 0],
}

/// `X509`.
#[repr(C)]
#[derive(Debug)]
pub struct X509 {
    _opaque: [u8; 0],
}

/// `X509_STORE_CTX`: one verification.
#[repr(C)]
#[derive(Debug)]
pub struct Verification {
    _opaque: [u8; 0],
}

#[repr(C)]
struct Stack {
    _opaque: [u8; 0],
}

type NewCallback = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void, c_int, c_long, *mut c_void);
/// Callback of `SSL_CTX_set_cert_verify_callback`.
pub type VerifyCallback = unsafe extern "C" fn(*mut Verification, *mut c_void) -> c_int;

/// `CRYPTO_EX_INDEX_SSL`.
const EX_INDEX_SSL: c_int = 0;
const CTRL_SET_SESS_CACHE_MODE: c_int = 44;
const SESS_CACHE_OFF: c_long = 0;
/// `SSL_OP_NO_TICKET`.
const OP_NO_TICKET: u64 = 1 << 14;

/// `X509_V_OK`.
pub const V_OK: c_int = 0;
/// `X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT`: the device gets the alert `unknown_ca`.
pub const V_ERR_UNKNOWN_ISSUER: c_int = 2;
/// `X509_V_ERR_CERT_HAS_EXPIRED`: `certificate_expired`.
pub const V_ERR_EXPIRED: c_int = 10;
/// `X509_V_ERR_CERT_REVOKED`: `certificate_revoked`.
pub const V_ERR_REVOKED: c_int = 23;
/// `X509_V_ERR_INVALID_PURPOSE`: `unsupported_certificate`.
pub const V_ERR_PURPOSE: c_int = 26;
/// `X509_V_ERR_CERT_REJECTED`: `bad_certificate`.
pub const V_ERR_REJECTED: c_int = 28;
/// `X509_V_ERR_APPLICATION_VERIFICATION`: `handshake_failure`.
pub const V_ERR_APPLICATION: c_int = 50;

unsafe extern "C" {
    fn CRYPTO_get_ex_new_index(
        class: c_int,
        argl: c_long,
        argp: *mut c_void,
        new: Option<NewCallback>,
        dup: *const c_void,
        free: *const c_void,
    ) -> c_int;
    fn SSL_get_SSL_CTX(ssl: *const Ssl) -> *mut Context;
    fn SSL_is_server(ssl: *const Ssl) -> c_int;
    fn SSL_set_num_tickets(ssl: *mut Ssl, tickets: usize) -> c_int;
    fn SSL_set_options(ssl: *mut Ssl, options: u64) -> u64;
    fn SSL_CTX_set_num_tickets(context: *mut Context, tickets: usize) -> c_int;
    fn SSL_CTX_set_options(context: *mut Context, options: u64) -> u64;
    fn SSL_CTX_ctrl(context: *mut Context, command: c_int, long: c_long, pointer: *mut c_void) -> c_long;
    fn SSL_CTX_set_cert_verify_callback(
        context: *mut Context,
        callback: Option<VerifyCallback>,
        argument: *mut c_void,
    );
    fn X509_STORE_CTX_get0_cert(verification: *const Verification) -> *mut X509;
    fn X509_STORE_CTX_get0_untrusted(verification: *const Verification) -> *mut Stack;
    fn X509_STORE_CTX_set_error(verification: *mut Verification, code: c_int);
    fn OPENSSL_sk_num(stack: *const Stack) -> c_int;
    fn OPENSSL_sk_value(stack: *const Stack, index: c_int) -> *mut c_void;
    fn i2d_X509(certificate: *const X509, out: *mut *mut u8) -> c_int;
    fn X509_free(certificate: *mut X509);
}

/// Has `callback` called for every SSL object of the process that is made from now on,
/// with the object as its first argument; says whether OpenSSL could.
pub fn on_new_ssl(callback: NewCallback) -> bool {
    // SAFETY: `SSL_get_ex_new_index` is a macro for this. No data is kept at the index,
    // so there is nothing to copy or free.
    let index = unsafe {
        CRYPTO_get_ex_new_index(
            EX_INDEX_SSL,
            0,
            std::ptr::null_mut(),
            Some(callback),
            std::ptr::null(),
            std::ptr::null(),
        )
    };
    index >= 0
}

/// The server's side of a TLS connection, while it is being made.
#[derive(Clone, Copy, Debug)]
pub struct ServerSsl(*mut Ssl);

impl ServerSsl {
    /// Takes what [`on_new_ssl`] gave; `None` for a client's side: a bridge's, whose
    /// server is not ours to judge.
    ///
    /// # Safety
    /// `ssl` MUST be of a live SSL object.
    pub unsafe fn new(ssl: *mut c_void) -> Option<Self> {
        let ssl: *mut Ssl = ssl.cast();
        // SAFETY: the caller vouches for it.
        let is_server = !ssl.is_null() && unsafe { SSL_is_server(ssl) } == 1;
        is_server.then_some(Self(ssl))
    }

    /// Has `callback` verify peers, in place of OpenSSL's own verification, on this
    /// connection and all later ones of its context.
    pub fn verify_by(self, callback: VerifyCallback) {
        // SAFETY: the context lives as long as the SSL object, and the callback as long
        // as the process (`build.rs`).
        unsafe {
            SSL_CTX_set_cert_verify_callback(SSL_get_SSL_CTX(self.0), Some(callback), std::ptr::null_mut());
        }
    }

    /// Turns every kind of resumption off, here and in the context. Both, because what
    /// this connection has was copied from the context before we were asked.
    pub fn refuse_resumption(self) {
        // SAFETY: plain settings of a live object and of its context.
        unsafe {
            let context = SSL_get_SSL_CTX(self.0);
            SSL_CTX_set_options(context, OP_NO_TICKET);
            SSL_CTX_set_num_tickets(context, 0);
            SSL_CTX_ctrl(context, CTRL_SET_SESS_CACHE_MODE, SESS_CACHE_OFF, std::ptr::null_mut());
            SSL_set_options(self.0, OP_NO_TICKET);
            SSL_set_num_tickets(self.0, 0);
        }
    }
}

/// The chain that a device shows, DER, its own certificate first; `None` where there is
/// nothing that could be verified.
///
/// # Safety
/// `verification` MUST be what OpenSSL gave to a verify callback that is running.
pub unsafe fn shown(verification: *const Verification) -> Option<Vec<Vec<u8>>> {
    // SAFETY: the caller vouches for it; what these return belongs to the verification.
    let (leaf, stack) =
        unsafe { (X509_STORE_CTX_get0_cert(verification), X509_STORE_CTX_get0_untrusted(verification)) };
    // SAFETY: the certificate lives as long as the verification.
    let leaf = unsafe { der(leaf) }?;
    let mut chain = vec![leaf];
    if !stack.is_null() {
        // SAFETY: a stack of certificates that lives as long as the verification.
        for index in 0..unsafe { OPENSSL_sk_num(stack) } {
            // SAFETY: the index is inside.
            let other = unsafe { der(OPENSSL_sk_value(stack, index).cast()) };
            // The leaf stands in the stack too.
            chain.extend(other.filter(|other| *other != chain[0]));
        }
    }
    Some(chain)
}

/// Tells OpenSSL why a verification failed: the alert follows from it.
///
/// # Safety
/// As for [`shown`].
pub unsafe fn set_error(verification: *mut Verification, code: c_int) {
    // SAFETY: the caller vouches for it.
    unsafe { X509_STORE_CTX_set_error(verification, code) }
}

/// The DER of a certificate; `None` for null.
///
/// # Safety
/// `certificate` MUST be null or of a live certificate.
unsafe fn der(certificate: *const X509) -> Option<Vec<u8>> {
    if certificate.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for it; null asks for the length.
    let length = unsafe { i2d_X509(certificate, std::ptr::null_mut()) };
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    let mut end = bytes.as_mut_ptr();
    // SAFETY: the buffer has the length that was just asked for, and the certificate
    // does not change meanwhile: this is the broker's only thread.
    let written = unsafe { i2d_X509(certificate, &raw mut end) };
    (written == length).then_some(bytes)
}

/// The DER of a certificate of which the caller has a reference, which is given back.
///
/// # Safety
/// `certificate` MUST be null, or a reference that nobody else gives back.
pub unsafe fn owned_der(certificate: *mut X509) -> Option<Vec<u8>> {
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { der(certificate) };
    // SAFETY: the reference is the caller's to give; null is passed over.
    unsafe { X509_free(certificate) };
    bytes
}
