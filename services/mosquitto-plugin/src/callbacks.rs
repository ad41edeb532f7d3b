//! What the broker calls. Panics end here: a panic that reached C would end the broker,
//! so it becomes a refusal.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use catrust_mosquitto_control::{RESPONSE_TOPIC, RequestOutcome, Response};

use crate::engine::{Client, Decision, Effect};
use crate::host::mosquitto::{
    self, BasicAuth, ClientRef, Control, Disconnect, ERR_ACL_DENIED, ERR_AUTH, ERR_PLUGIN_DEFER, ERR_UNKNOWN,
    Level, SUCCESS, log,
};
use crate::options::Passwords;
use crate::plugin;
use crate::sessions::ClientKey;

fn guarded(refusal: c_int, body: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(refusal)
}

fn client(client: ClientRef, user_name: Option<String>) -> Client {
    Client {
        client_id: client.client_id(),
        user_name,
        certificate: client.certificate(),
        socket: client.socket(),
    }
}

/// `MOSQ_EVT_BASIC_AUTH`: at CONNECT, resumed TLS sessions included, and again for
/// every live session on SIGHUP.
///
/// # Safety
/// For the broker alone.
pub unsafe extern "C" fn on_basic_auth(_event: c_int, data: *mut c_void, _user: *mut c_void) -> c_int {
    guarded(ERR_AUTH, || {
        // SAFETY: the broker gives the data of this event, and a client that it holds.
        let (reference, given) = unsafe {
            let event = &*data.cast::<BasicAuth>();
            (ClientRef::new(event.client), mosquitto::text(event.username))
        };
        let client = client(reference, given);
        let (client_id, user_name) = (client.client_id.clone(), client.user_name.clone());
        let key = ClientKey(reference.address());
        match plugin::with(|engine| engine.connect(key, client, plugin::now())) {
            Some(Decision::Admit(name)) => admit(reference, key, user_name, name),
            Some(Decision::Agent) => SUCCESS,
            Some(Decision::Defer) => ERR_PLUGIN_DEFER,
            Some(Decision::Deny(denial)) => {
                log(Level::Info, &format!("the client {client_id:?} is refused: {denial}"));
                ERR_AUTH
            }
            None => ERR_AUTH,
        }
    })
}

/// Gives the device its user name. One that cannot be given is a refusal: access rules
/// would otherwise take the device for somebody else.
fn admit(client: ClientRef, key: ClientKey, has: Option<String>, name: Option<String>) -> c_int {
    let named = match name {
        Some(name) if has.as_ref() != Some(&name) => client.set_user_name(&name),
        _ => true,
    };
    if named {
        let checks = plugin::with(|engine| engine.options().passwords == Passwords::Check);
        return if checks == Some(false) { SUCCESS } else { ERR_PLUGIN_DEFER };
    }
    plugin::with(|engine| engine.disconnected(key));
    ERR_AUTH
}

/// `MOSQ_EVT_DISCONNECT`: also in the middle of a kick.
///
/// # Safety
/// For the broker alone.
pub unsafe extern "C" fn on_disconnect(_event: c_int, data: *mut c_void, _user: *mut c_void) -> c_int {
    guarded(SUCCESS, || {
        // SAFETY: the broker gives the data of this event.
        let reference = unsafe { ClientRef::new((*data.cast::<Disconnect>()).client) };
        plugin::with(|engine| engine.disconnected(ClientKey(reference.address())));
        SUCCESS
    })
}

/// `MOSQ_EVT_CONTROL` on the request topic.
///
/// # Safety
/// For the broker alone.
pub unsafe extern "C" fn on_control(_event: c_int, data: *mut c_void, _user: *mut c_void) -> c_int {
    guarded(ERR_UNKNOWN, || {
        // SAFETY: the broker gives the data of this event, a client that it holds, and
        // that many bytes of payload.
        let (reference, payload) = unsafe {
            let event = &*data.cast::<Control>();
            let payload = if event.payload.is_null() {
                &[][..]
            } else {
                std::slice::from_raw_parts(event.payload.cast::<u8>(), event.payload_length as usize)
            };
            (ClientRef::new(event.client), payload)
        };
        let sender = client(reference, reference.user_name());
        if plugin::with(|engine| engine.is_agent(&sender)) != Some(true) {
            let id = &sender.client_id;
            log(Level::Warning, &format!("the client {id:?} is not the agent, and its request is refused"));
            return ERR_ACL_DENIED;
        }
        let response = carry_out(payload);
        answer(&sender.client_id, &response);
        SUCCESS
    })
}

fn carry_out(payload: &[u8]) -> Response {
    let begin = Instant::now();
    let effect = plugin::with(|engine| engine.control(payload, plugin::now()));
    let mut response = effect.map_or_else(lost, cut);
    response.ms = begin.elapsed().as_secs_f64() * 1000.0;
    response
}

/// Kicks, with the engine's lock free: the broker calls [`on_disconnect`] for each.
fn cut(effect: Effect) -> Response {
    let Effect { mut response, kick, with_will } = effect;
    for (_, client_id) in &kick {
        mosquitto::kick(client_id, with_will);
    }
    let (open, left) =
        plugin::with(|engine| (engine.open(), engine.still_open(&kick))).unwrap_or((0, kick.len()));
    response.open = open;
    response.kicked = (kick.len() - left) as u64;
    if left > 0 {
        response.outcome = RequestOutcome::Refused;
        response.reason = format!("{left} sessions could not be closed");
    }
    response
}

/// A panic before this request left no state that anybody could vouch for; nobody new
/// is accepted since. Only a restart of the broker helps.
fn lost() -> Response {
    Response {
        id: 0,
        outcome: RequestOutcome::Refused,
        reason: "the plugin failed and accepts nobody: restart the broker".to_owned(),
        revision: 0,
        digest: None,
        kicked: 0,
        open: 0,
        ms: 0.0,
    }
}

fn answer(client_id: &str, response: &Response) {
    let level = if response.outcome == RequestOutcome::Applied { Level::Notice } else { Level::Error };
    let text = serde_json::to_string(response).unwrap_or_default();
    // Renewals come every few seconds, and would fill the log.
    if response.outcome == RequestOutcome::Refused || response.kicked > 0 {
        log(level, &text);
    }
    if !mosquitto::publish_to(client_id, RESPONSE_TOPIC, text.as_bytes()) {
        log(Level::Error, "the response could not be published");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    #[test]
    fn a_panic_is_a_refusal_then_and_from_then_on() {
        assert_eq!(guarded(ERR_AUTH, || SUCCESS), SUCCESS);
        assert!(plugin::start(Options::default()));
        assert!(!plugin::start(Options::default()), "two plugins in one broker");
        assert_eq!(plugin::with(|engine| engine.open()), Some(0));
        let code = guarded(ERR_AUTH, || {
            plugin::with(|_| panic!("a defect"));
            SUCCESS
        });
        assert_eq!(code, ERR_AUTH);
        assert_eq!(plugin::with(|engine| engine.open()), None);
        assert_eq!(lost().outcome, RequestOutcome::Refused);
    }
}
