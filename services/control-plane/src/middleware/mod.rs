//! tower layers, one file each, in the order in which a request meets them:
//!
//! | layer | around | does |
//! |---|---|---|
//! | [`in_flight`] | everything | knows the calls in progress, for a server that leaves |
//! | [`request_id`] | everything | names the request; completes errors that tonic makes itself |
//! | [`trace_context`] | everything | opens the server span under the caller's trace |
//! | [`deadline`] | everything | ends a unary call at its deadline |
//! | [`refusals`] | the services of the contract | notes what those behind it refuse |
//! | [`identity`] | the services of the contract | finds out who calls |
//! | [`log_state`] | the services of the contract | marks replies while the log is set back |
//! | [`load_shed`] | the services of the contract | bounds the work in progress, each user's too, inactivations last |
//! | [`rate_limit`] | the services of the contract | counts calls by user, and tells users where they stand |
//! | [`request_body`] | the services of the contract | ends a request whose message does not arrive |
//!
//! Health and reflection pass the first four only: they stay free. tonic's own
//! timeout, load shedding and limits are not used, because they sit outside the
//! layers of `Server::layer` and would answer without a request id.

mod around;
pub(crate) mod deadline;
pub(crate) mod identity;
pub(crate) mod in_flight;
pub(crate) mod load_shed;
pub(crate) mod log_state;
pub(crate) mod rate_limit;
pub(crate) mod refusals;
pub(crate) mod request_body;
pub(crate) mod request_id;
pub(crate) mod trace_context;

use around::answer;
pub(crate) use around::{Around, Middleware, ResponseFuture};
