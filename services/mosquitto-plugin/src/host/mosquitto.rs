//! Mosquitto's plugin interface, version 5.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use super::openssl::owned_der;

/// Version of the plugin interface.
pub const PLUGIN_VERSION: c_int = 5;

/// Return codes.
pub const SUCCESS: c_int = 0;
/// Refused at CONNECT: CONNACK 5, or 0x87 for MQTT 5.
pub const ERR_AUTH: c_int = 11;
/// Refused by an access rule.
pub const ERR_ACL_DENIED: c_int = 12;
/// Something else.
pub const ERR_UNKNOWN: c_int = 13;
/// Not ours to decide.
pub const ERR_PLUGIN_DEFER: c_int = 17;
/// Interface versions do not match.
pub const ERR_NOT_SUPPORTED: c_int = 10;

const EVT_BASIC_AUTH: c_int = 3;
const EVT_CONTROL: c_int = 6;
const EVT_DISCONNECT: c_int = 10;

/// `mp_mqtt`: TCP, TLS or a unix socket.
const PROTOCOL_MQTT: c_int = 0;

const LOG_INFO: c_int = 1 << 0;
const LOG_NOTICE: c_int = 1 << 1;
const LOG_WARNING: c_int = 1 << 2;
const LOG_ERR: c_int = 1 << 3;

/// `struct mosquitto`: a client.
#[repr(C)]
#[derive(Debug)]
pub struct RawClient {
    _opaque: [u8; 0],
}

/// `mosquitto_plugin_id_t`.
#[repr(C)]
#[derive(Debug)]
pub struct PluginId {
    _opaque: [u8; 0],
}

/// `struct mosquitto_opt`.
#[repr(C)]
#[derive(Debug)]
pub struct RawOption {
    /// Name, without `plugin_opt_`.
    pub key: *const c_char,
    /// Value.
    pub value: *const c_char,
}

/// `struct mosquitto_evt_basic_auth`.
#[repr(C)]
#[derive(Debug)]
pub struct BasicAuth {
    future: *mut c_void,
    /// The client.
    pub client: *mut RawClient,
    /// Its user name, or null.
    pub username: *const c_char,
    password: *const c_char,
    future2: [*mut c_void; 4],
}

/// `struct mosquitto_evt_control`.
#[repr(C)]
#[derive(Debug)]
pub struct Control {
    future: *mut c_void,
    /// The client that published.
    pub client: *mut RawClient,
    topic: *const c_char,
    /// What it published, `payload_length` bytes.
    pub payload: *const c_void,
    properties: *const c_void,
    reason_string: *mut c_char,
    /// Bytes of `payload`.
    pub payload_length: u32,
    qos: u8,
    reason_code: u8,
    retain: bool,
    future2: [*mut c_void; 4],
}

/// `struct mosquitto_evt_disconnect`.
#[repr(C)]
#[derive(Debug)]
pub struct Disconnect {
    future: *mut c_void,
    /// The client.
    pub client: *mut RawClient,
    reason: c_int,
    future2: [*mut c_void; 4],
}

/// `MOSQ_FUNC_generic_callback`.
pub type Callback = unsafe extern "C" fn(c_int, *mut c_void, *mut c_void) -> c_int;

unsafe extern "C" {
    fn mosquitto_callback_register(
        identifier: *mut PluginId,
        event: c_int,
        callback: Callback,
        event_data: *const c_void,
        userdata: *mut c_void,
    ) -> c_int;
    fn mosquitto_log_printf(level: c_int, format: *const c_char, ...);
    fn mosquitto_client_address(client: *const RawClient) -> *const c_char;
    fn mosquitto_client_protocol(client: *const RawClient) -> c_int;
    fn mosquitto_client_id(client: *const RawClient) -> *const c_char;
    fn mosquitto_client_username(client: *const RawClient) -> *const c_char;
    fn mosquitto_client_certificate(client: *const RawClient) -> *mut c_void;
    fn mosquitto_set_username(client: *mut RawClient, username: *const c_char) -> c_int;
    fn mosquitto_kick_client_by_clientid(client_id: *const c_char, with_will: bool) -> c_int;
    fn mosquitto_broker_publish_copy(
        client_id: *const c_char,
        topic: *const c_char,
        payload_length: c_int,
        payload: *const c_void,
        qos: c_int,
        retain: bool,
        properties: *mut c_void,
    ) -> c_int;
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A device is refused.
    Info,
    /// The trust changed.
    Notice,
    /// Somebody should look.
    Warning,
    /// The plugin cannot do its work.
    Error,
}

/// Writes to the broker's log.
pub fn log(level: Level, text: &str) {
    let level = match level {
        Level::Info => LOG_INFO,
        Level::Notice => LOG_NOTICE,
        Level::Warning => LOG_WARNING,
        Level::Error => LOG_ERR,
    };
    let text = c_text(&format!("catrust: {text}"));
    // SAFETY: the format takes one string, and gets one that ends with a zero byte.
    unsafe { mosquitto_log_printf(level, c"%s".as_ptr(), text.as_ptr()) }
}

/// Text for C: a zero byte inside, which only a hostile peer puts there, becomes U+FFFD.
fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Text from C; `None` for null. What is not UTF-8 is replaced, never dropped: a
/// shortened name could become another one's.
///
/// # Safety
/// `text` MUST be null, or point to bytes that end with zero and stay for the call.
pub unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for it.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// Registers the three callbacks.
///
/// # Errors
/// The broker's code of the first that it refuses.
///
/// # Safety
/// `identifier` MUST be the one that the broker gave to `mosquitto_plugin_init`.
pub unsafe fn register(
    identifier: *mut PluginId,
    basic_auth: Callback,
    control: Callback,
    disconnect: Callback,
    topic: &str,
) -> Result<(), c_int> {
    let topic = c_text(topic);
    let callbacks = [
        (EVT_BASIC_AUTH, basic_auth, std::ptr::null()),
        (EVT_CONTROL, control, topic.as_ptr().cast()),
        (EVT_DISCONNECT, disconnect, std::ptr::null()),
    ];
    for (event, callback, data) in callbacks {
        // SAFETY: the broker copies the topic, and keeps nothing else of ours but the
        // addresses of functions, which stay until it ends (`build.rs`).
        match unsafe { mosquitto_callback_register(identifier, event, callback, data, std::ptr::null_mut()) }
        {
            SUCCESS => {}
            code => return Err(code),
        }
    }
    Ok(())
}

/// A client, for the length of a callback.
#[derive(Clone, Copy, Debug)]
pub struct ClientRef(*mut RawClient);

impl ClientRef {
    /// Takes what a callback got.
    ///
    /// # Safety
    /// `client` MUST be of a client that the broker holds, and the value MUST NOT be
    /// used after the client's disconnect event.
    #[must_use]
    pub const unsafe fn new(client: *mut RawClient) -> Self {
        Self(client)
    }

    /// Its address: its name as long as it is connected.
    #[must_use]
    pub fn address(self) -> usize {
        self.0 as usize
    }

    /// MQTT client identifier; empty before there is one.
    #[must_use]
    pub fn client_id(self) -> String {
        // SAFETY: see `new`; the text belongs to the client.
        unsafe { text(mosquitto_client_id(self.0)) }.unwrap_or_default()
    }

    /// User name.
    #[must_use]
    pub fn user_name(self) -> Option<String> {
        // SAFETY: see `new`; the text belongs to the client.
        unsafe { text(mosquitto_client_username(self.0)) }
    }

    /// Path of the unix socket that it came over; `None` for any other way.
    #[must_use]
    pub fn socket(self) -> Option<String> {
        // SAFETY: see `new`; the text belongs to the client.
        let (protocol, address) =
            unsafe { (mosquitto_client_protocol(self.0), mosquitto_client_address(self.0)) };
        // Over WebSockets the address may be what an HTTP header says.
        if protocol != PROTOCOL_MQTT {
            return None;
        }
        // SAFETY: as above. For a unix socket the broker gives the listener's path where
        // it gives an IP address otherwise.
        unsafe { text(address) }.filter(|address| address.parse::<std::net::IpAddr>().is_err())
    }

    /// The certificate, DER.
    #[must_use]
    pub fn certificate(self) -> Option<Vec<u8>> {
        // SAFETY: see `new`. The broker gives a reference of our own, or null.
        unsafe { owned_der(mosquitto_client_certificate(self.0).cast()) }
    }

    /// Gives it a user name; says whether the broker took it.
    #[must_use]
    pub fn set_user_name(self, name: &str) -> bool {
        let name = c_text(name);
        // SAFETY: see `new`; the broker copies the name.
        unsafe { mosquitto_set_username(self.0, name.as_ptr()) == SUCCESS }
    }
}

/// Ends the session of `client_id`; the broker calls our disconnect callback meanwhile.
pub fn kick(client_id: &str, with_will: bool) -> bool {
    let client_id = c_text(client_id);
    // SAFETY: the identifier is not null, which would mean everybody.
    unsafe { mosquitto_kick_client_by_clientid(client_id.as_ptr(), with_will) == SUCCESS }
}

/// Publishes to one client alone, QoS 1; says whether the broker took it.
#[must_use]
pub fn publish_to(client_id: &str, topic: &str, payload: &[u8]) -> bool {
    let Ok(length) = c_int::try_from(payload.len()) else { return false };
    let (client_id, topic) = (c_text(client_id), c_text(topic));
    // SAFETY: the broker copies all three, and no properties go along.
    let code = unsafe {
        mosquitto_broker_publish_copy(
            client_id.as_ptr(),
            topic.as_ptr(),
            length,
            payload.as_ptr().cast(),
            1,
            false,
            std::ptr::null_mut(),
        )
    };
    code == SUCCESS
}
