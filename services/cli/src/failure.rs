//! What went wrong, and the exit code that says so to scripts.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::path::Path;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The value of `google.rpc.ErrorInfo.domain` in every error of the contract.
const DOMAIN: &str = "catrust";

/// Why the command did not succeed. `Display` is what a person reads on stderr.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server said no. Repeating the same call gets the same answer.
    Refused(Box<ContractError>),
    /// Policies said no, or are not usable; no server was asked.
    Policy(String),
    /// A key or a key set is not to be believed; no server was asked.
    Keys(String),
    /// Evidence that does not hold; no server was asked.
    Evidence(String),
    /// The command cannot be carried out as it was given.
    Usage(String),
    /// No answer from the server, so that a change may or may not have been made.
    Unreachable {
        /// The server's URL.
        server: String,
        /// What happened on the way.
        why: String,
    },
    /// Nobody reads our output any more.
    OutputClosed,
}

impl Failure {
    /// 1 refused, 2 usage, 3 unreachable; 0 where the reader left.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Refused(_) | Self::Policy(_) | Self::Keys(_) | Self::Evidence(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
        }
    }

    /// Tells a refusal by the server from a call that never got an answer.
    pub(crate) fn from_status(status: &Status, server: &str) -> Self {
        let details = status.get_error_details();
        let answered = details.error_info().is_some_and(|info| info.domain == DOMAIN);
        if !answered && is_transport(status) {
            return Self::Unreachable { server: server.to_owned(), why: chain(status) };
        }
        Self::Refused(Box::new(ContractError::new(status, &details)))
    }

    /// A file that the command needs cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::Usage(format!("cannot read {}: {error}", path.display()))
    }
}

/// Whether the status was made on this side of the wire, or by something in between
/// that has no server behind it.
pub(crate) fn is_transport(status: &Status) -> bool {
    let local = status.source().is_some();
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        Code::Unknown | Code::Cancelled | Code::Internal => local,
        _ => false,
    }
}

/// The message and its causes, outermost first, without repetitions.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Policy(message) | Self::Keys(message) | Self::Evidence(message) | Self::Usage(message) => {
                f.write_str(message)
            }
            Self::Unreachable { server, why } => write!(
                f,
                "no answer from {server}: {why}\n  is the server running, and is --server (or CATRUST_SERVER) right?"
            ),
            Self::OutputClosed => f.write_str("nobody reads the output"),
        }
    }
}

/// An error of the contract, as the server sent it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ContractError {
    /// The code of the error table, else gRPC's name for the status.
    code: String,
    message: String,
    /// Field and what is wrong with it.
    fields: Vec<(String, String)>,
    retry_after_ms: Option<u128>,
    request_id: Option<String>,
}

impl ContractError {
    fn new(status: &Status, details: &ErrorDetails) -> Self {
        let metadata = |key: &str| details.error_info().and_then(|info| info.metadata.get(key).cloned());
        let message = match (status.code(), status.message()) {
            (Code::Unimplemented, "") => "the server does not offer this call".to_owned(),
            (Code::Unimplemented, text) => format!("the server does not offer this call: {text}"),
            (_, text) => text.to_owned(),
        };
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        Self {
            code: metadata("code").unwrap_or_else(|| format!("{:?}", status.code())),
            message,
            fields: violations.iter().map(|found| (found.field.clone(), found.description.clone())).collect(),
            retry_after_ms: details
                .retry_info()
                .and_then(|retry| retry.retry_delay)
                .map(|delay| delay.as_millis()),
            request_id: metadata("request_id"),
        }
    }
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!("{}: {}", self.code, self.message);
        for (field, description) in &self.fields {
            write!(text, "\n  {field}: {description}")?;
        }
        if let Some(delay) = self.retry_after_ms {
            write!(text, "\n  try again in {delay} ms")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(text, "\n  request id {request_id}")?;
        }
        f.write_str(&crate::spelling::printable(&text, true))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    const SERVER: &str = "http://127.0.0.1:50051";

    fn details(code: &str) -> ErrorDetails {
        let metadata = HashMap::from([
            ("code".to_owned(), code.to_owned()),
            ("request_id".to_owned(), "b9c1".to_owned()),
        ]);
        ErrorDetails::with_error_info("REASON", DOMAIN, metadata)
    }

    fn refused(code: Code, details: ErrorDetails) -> Failure {
        Failure::from_status(&Status::with_error_details(code, "that will not do", details), SERVER)
    }

    #[test]
    fn a_refusal_shows_the_code_of_the_error_table_the_fields_and_the_request_id() {
        let mut details = details("ParameterFieldCheckFailed");
        details.add_bad_request_violation("sn", "is longer than 128 bytes");
        let failure = refused(Code::InvalidArgument, details);
        assert_eq!(failure.exit_code(), 1);
        assert_eq!(
            failure.to_string(),
            "ParameterFieldCheckFailed: that will not do\n  sn: is longer than 128 bytes\n  request id b9c1"
        );
    }

    #[test]
    fn a_rate_limit_says_when_to_come_back() {
        let mut details = details("RateLimitExceeded");
        details.set_retry_info(Some(Duration::from_millis(12)));
        let text = refused(Code::ResourceExhausted, details).to_string();
        assert!(text.contains("\n  try again in 12 ms\n"), "{text}");
    }

    #[test]
    fn an_overloaded_server_refuses_but_an_absent_one_is_unreachable() {
        assert_eq!(refused(Code::Unavailable, details("SystemOverFlow")).exit_code(), 1);
        let failure = Failure::from_status(&Status::unavailable("tcp connect error"), SERVER);
        assert_eq!(failure.exit_code(), 3);
        let text = failure.to_string();
        assert!(text.contains(SERVER) && text.contains("tcp connect error"), "{text}");
    }

    #[test]
    fn a_connection_lost_in_the_middle_is_unreachable_with_its_causes() {
        let cause = std::io::Error::other("connection reset by peer");
        let failure = Failure::from_status(&Status::from_error(Box::new(cause)), SERVER);
        assert_eq!(failure.exit_code(), 3);
        assert!(failure.to_string().contains("connection reset by peer"), "{failure}");
    }

    #[test]
    fn a_status_without_details_shows_the_grpc_code() {
        let failure = Failure::from_status(&Status::unauthenticated("no token"), SERVER);
        assert_eq!((failure.exit_code(), failure.to_string()), (1, "Unauthenticated: no token".to_owned()));
        let failure = Failure::from_status(&Status::internal("broken"), SERVER);
        assert_eq!(failure.exit_code(), 1, "the server said INTERNAL itself");
    }

    #[test]
    fn a_call_that_is_not_built_yet_says_so() {
        let failure = Failure::from_status(&Status::unimplemented("receipts are not collected yet"), SERVER);
        let expected = "Unimplemented: the server does not offer this call: receipts are not collected yet";
        assert_eq!((failure.exit_code(), failure.to_string()), (1, expected.to_owned()));
    }

    #[test]
    fn usage_has_its_own_exit_code() {
        let failure = Failure::unreadable(Path::new("absent.pem"), &std::io::ErrorKind::NotFound.into());
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().starts_with("cannot read absent.pem: "), "{failure}");
    }
}
