//! What a call can be refused with, and how the wire says so.
//!
//! [`ApiError`] has one variant per row of the contract's error table, and
//! [`to_status`] is the only place in the server that makes a [`tonic::Status`]
//! for a caller. Inner errors go to the log under the request id, never into a
//! message.

use std::collections::HashMap;
use std::time::Duration;

use catrust_domain::log_epoch::spell_revision;
use catrust_domain::{Rejection, SerialNumber, error_chain};
use catrust_event_store::StoreError;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, QuotaViolation, StatusExt as _};
use uuid::Uuid;

/// Value of `google.rpc.ErrorInfo.domain`.
const DOMAIN: &str = "catrust";

/// How long a caller should wait before it repeats a call that met a busy or
/// unavailable server.
const RETRY_LATER: Duration = Duration::from_millis(500);

/// Why a call is refused.
#[derive(Debug)]
pub enum ApiError {
    /// No identity, or not a valid one. The text says what is missing.
    Unauthenticated(&'static str),
    /// Over the rate limit of the user.
    RateLimited {
        /// When exactly the next call would pass.
        retry_after: Duration,
        /// The limit, per second.
        per_second: u32,
        /// The user that the limit counts.
        user: String,
    },
    /// The user has as many streams open as one may have.
    TooManyStreams {
        /// How many.
        most: usize,
        /// The user that the limit counts.
        user: String,
    },
    /// Fields missing, too long or malformed: `(field, what is wrong)`.
    Fields(Vec<(&'static str, String)>),
    /// Not a usable CA or verification certificate.
    CertificateContent {
        /// `ca_content` or `verification_content`.
        field: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// Policy says no.
    PermissionDenied {
        /// The action that no policy allows.
        action: &'static str,
    },
    /// The identity is a broker's, and this is not its own.
    BoundToBroker {
        /// What it asked for.
        action: &'static str,
    },
    /// Only operators of catrust itself may do this.
    OperatorsOnly {
        /// What.
        action: &'static str,
    },
    /// A rule said no.
    Rejected(Rejection),
    /// The instance has not reached the asked-for revision or time.
    RevisionNotFound(String),
    /// The instance has no such event.
    EventNotFound,
    /// The service is overloaded; nothing was done.
    Overloaded,
    /// The caller's deadline, or the server's, has passed.
    DeadlineExceeded,
    /// The caller has gone away.
    Cancelled,
    /// This server is about to stop; another one will answer.
    Draining,
    /// The store failed.
    Store(StoreError),
    /// Anything else. The text goes to the log only.
    Internal(String),
}

impl ApiError {
    /// One malformed field.
    pub fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Fields(vec![(field, problem.into())])
    }

    /// The gRPC code and the code of the error table.
    #[must_use]
    pub const fn codes(&self) -> (Code, &'static str) {
        match self {
            Self::Unauthenticated(_) => (Code::Unauthenticated, "Unauthenticated"),
            Self::RateLimited { .. } => (Code::ResourceExhausted, "RateLimitExceeded"),
            Self::TooManyStreams { .. } => (Code::ResourceExhausted, "StreamNumExceed"),
            Self::Fields(_) => (Code::InvalidArgument, "ParameterFieldCheckFailed"),
            Self::CertificateContent { .. } => (Code::InvalidArgument, "CertificateContentError"),
            Self::PermissionDenied { .. } | Self::BoundToBroker { .. } | Self::OperatorsOnly { .. } => {
                (Code::PermissionDenied, "PermissionCheckFailed")
            }
            Self::Rejected(rejection) => rejection_codes(rejection),
            Self::RevisionNotFound(_) => (Code::OutOfRange, "RevisionNotFound"),
            Self::EventNotFound => (Code::NotFound, "EventNotFound"),
            Self::Overloaded | Self::Draining => (Code::Unavailable, "SystemOverFlow"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "DeadlineExceeded"),
            Self::Cancelled => (Code::Cancelled, "Cancelled"),
            Self::Store(StoreError::Unavailable(_) | StoreError::Ambiguous(_)) => {
                (Code::Unavailable, "SystemOverFlow")
            }
            Self::Store(StoreError::SetBack { .. }) => (Code::FailedPrecondition, "LogSetBack"),
            Self::Store(StoreError::EpochEnded { .. }) => (Code::OutOfRange, "RevisionNotFound"),
            Self::Store(_) | Self::Internal(_) => (Code::Internal, "InternalError"),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Unauthenticated(problem) => (*problem).to_owned(),
            Self::RateLimited { retry_after, per_second, user } => format!(
                "{user} is over {per_second} requests per second; repeat after {} ms",
                retry_after.as_millis() + 1
            ),
            Self::TooManyStreams { most, user } => format!(
                "{user} has {most} streams open at this server; close some, use another server, or have \
                 grpc.max_streams_per_user raised"
            ),
            Self::Fields(violations) => {
                let texts: Vec<_> =
                    violations.iter().map(|(field, text)| format!("{field} {text}")).collect();
                texts.join("; ")
            }
            Self::CertificateContent { field, problem } => format!("{field}: {problem}"),
            // The resource has the region and the owner in it: a stranger must not learn them.
            Self::PermissionDenied { action } => {
                format!("no policy allows {action} on this instance; ask for that permission")
            }
            Self::BoundToBroker { action } => format!(
                "{action}: this identity is a broker's, which may watch and report for its own instance under its \
                 own broker id; use the identity of that broker, or a person's"
            ),
            Self::OperatorsOnly { action } => {
                format!("{action} is for operators of catrust; use an identity with `operator = true`")
            }
            Self::Rejected(rejection) => rejection_message(rejection),
            Self::RevisionNotFound(problem) => problem.clone(),
            Self::EventNotFound => {
                "the instance has no such event; ListCaCertificateEvents has those that there are".to_owned()
            }
            Self::Overloaded => "the service is overloaded; nothing was done, repeat later".to_owned(),
            Self::DeadlineExceeded => "the deadline has passed; a change may or may not have been made, \
                                       repeat it with the same request_id"
                .to_owned(),
            Self::Cancelled => "the caller went away".to_owned(),
            Self::Draining => "this server is stopping; connect again".to_owned(),
            Self::Store(StoreError::Ambiguous(_)) => "the database went away during the commit; the change \
                                                      may have been made, repeat it with the same request_id"
                .to_owned(),
            Self::Store(StoreError::Unavailable(_)) => {
                "the database is unavailable; nothing was done, repeat later".to_owned()
            }
            Self::Store(StoreError::SetBack { reason }) => format!(
                "the event log was set back, so that nothing is changed or signed: {reason}; look at \
                 `catrust-server epoch status`, then restore the log or begin an epoch"
            ),
            Self::Store(StoreError::EpochEnded { ended, fork_position, next }) => format!(
                "log epoch {ended} ended, and what it had beyond position {fork_position} may be lost; ask for a \
                 revision of epoch {next}, or for a time from its begin on"
            ),
            Self::Store(_) | Self::Internal(_) => {
                "an internal error; the request id finds it in the server's log".to_owned()
            }
        }
    }

    /// When a repeat makes sense: the wait, or `None` where it would not help.
    const fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::Overloaded
            | Self::Draining
            | Self::Store(StoreError::Unavailable(_) | StoreError::Ambiguous(_)) => Some(RETRY_LATER),
            _ => None,
        }
    }

    /// A set-back log is told once, when it is found, and not with every call that meets it.
    fn is_fault_of_server(&self) -> bool {
        match self {
            Self::Store(error) => {
                !matches!(error, StoreError::SetBack { .. } | StoreError::EpochEnded { .. })
            }
            error => matches!(error, Self::Internal(_)),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

const fn rejection_codes(rejection: &Rejection) -> (Code, &'static str) {
    match rejection {
        Rejection::InstanceNotFound => (Code::NotFound, "MqttInstanceNotFound"),
        Rejection::InstanceExists => (Code::AlreadyExists, "MqttInstanceExists"),
        Rejection::NotOwner => (Code::PermissionDenied, "MqttOwnerCheckError"),
        Rejection::EditionNotSupported => (Code::FailedPrecondition, "EditionNotSupported"),
        Rejection::CertificateNotFound => (Code::NotFound, "FindCaBySnError"),
        Rejection::SerialNumberTaken(_) => (Code::AlreadyExists, "SnNotUnique"),
        Rejection::RegisterCodeUnknown => (Code::FailedPrecondition, "RegisterCodeError"),
        Rejection::RegisterCodeSpent => (Code::FailedPrecondition, "RegisterCodeUsed"),
        Rejection::TooManyCertificates(_) => (Code::FailedPrecondition, "CaNumExceed"),
        Rejection::KeyHeldByActive(_) => (Code::FailedPrecondition, "CaKeyInUse"),
        Rejection::MadeInactiveAgain { .. } => (Code::FailedPrecondition, "MadeInactiveAgain"),
        Rejection::RequestIdReused => (Code::InvalidArgument, "RequestIdReused"),
        Rejection::StoredRowDamaged => (Code::Internal, "InternalError"),
    }
}

fn rejection_message(rejection: &Rejection) -> String {
    match rejection {
        Rejection::InstanceNotFound => {
            "no such MQTT instance; check mqtt_instance_id, or register it with InstanceService".to_owned()
        }
        Rejection::InstanceExists => {
            "the MQTT instance is registered already with other values; use UpdateInstance".to_owned()
        }
        Rejection::NotOwner => {
            "the MQTT instance belongs to another account; use an identity of its owner".to_owned()
        }
        Rejection::EditionNotSupported => {
            "only Platinum instances may change CA states; upgrade the edition of the instance".to_owned()
        }
        Rejection::CertificateNotFound => {
            "no CA certificate with this sn in the instance; ListCaCertificates names them".to_owned()
        }
        Rejection::SerialNumberTaken(sn) => format!(
            "a CA certificate with sn {sn} is registered already; delete it first, or register another one"
        ),
        Rejection::RegisterCodeUnknown => {
            "the common name of the verification certificate is no register code \
                                           of this instance; get one with GetRegisterCode and sign it"
                .to_owned()
        }
        Rejection::RegisterCodeSpent => {
            "the register code has been used; get a new one with GetRegisterCode".to_owned()
        }
        Rejection::TooManyCertificates(limit) => {
            format!("the instance has its {limit} CA certificates; delete one, or raise the limit")
        }
        Rejection::KeyHeldByActive(twins) => {
            let names: Vec<_> = twins.iter().take(10).map(SerialNumber::as_str).collect();
            format!(
                "deleting it would lift the distrust of its key, which active CA certificates share (sn {}); \
                 inactivate or delete those first",
                names.join(", ")
            )
        }
        Rejection::MadeInactiveAgain { revision } => format!(
            "the CA certificate was made inactive by a change that this call has not seen ({}); look at it with \
             GetCaCertificate, and where it should be trusted all the same, pass its revision, {revision}, as \
             expected_revision",
            spell_revision(*revision)
        ),
        Rejection::RequestIdReused => {
            "this request_id was used for another request; use a new one for each request".to_owned()
        }
        Rejection::StoredRowDamaged => {
            "a stored row that this needs is damaged, and nothing was done; the server's log names it"
                .to_owned()
        }
    }
}

/// `FindCaBySnError` → `FIND_CA_BY_SN_ERROR`.
fn upper_snake(code: &str) -> String {
    let mut out = String::with_capacity(code.len() + 8);
    for (index, letter) in code.chars().enumerate() {
        if index > 0 && letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

/// Turns an error into the status that the caller sees, and logs it where the
/// server is to blame.
#[must_use]
pub fn to_status(error: &ApiError, request_id: Uuid) -> Status {
    let (code, name) = error.codes();
    if error.is_fault_of_server() {
        log_fault(error, request_id);
    }
    let mut details = ErrorDetails::new();
    let metadata = HashMap::from([
        ("code".to_owned(), name.to_owned()),
        ("request_id".to_owned(), request_id.to_string()),
    ]);
    details.set_error_info(upper_snake(name), DOMAIN, metadata);
    match error {
        ApiError::Fields(violations) => {
            let violations: Vec<_> = violations
                .iter()
                .map(|(field, problem)| FieldViolation::new(*field, problem.as_str()))
                .collect();
            details.set_bad_request(violations);
        }
        ApiError::CertificateContent { field, problem } => {
            details.set_bad_request(vec![FieldViolation::new(*field, problem.as_str())]);
        }
        ApiError::RateLimited { per_second, user, .. } => {
            let description = format!("{per_second} requests per second and user");
            details.set_quota_failure(vec![QuotaViolation::new(user.as_str(), description)]);
        }
        ApiError::TooManyStreams { most, user } => {
            let description = format!("{most} open streams per user and server");
            details.set_quota_failure(vec![QuotaViolation::new(user.as_str(), description)]);
        }
        _ => {}
    }
    let retry_delay = error.retry_delay();
    if retry_delay.is_some() {
        details.set_retry_info(retry_delay);
    }
    let mut status = Status::with_error_details(code, error.message(), details);
    if let (ApiError::RateLimited { .. }, Some(delay)) = (error, retry_delay) {
        // gRPC A6: clients with a retry policy wait for exactly this long.
        let millis = MetadataValue::<Ascii>::from(delay.as_millis() as u64 + 1);
        status.metadata_mut().insert("grpc-retry-pushback-ms", millis);
    }
    status
}

/// The status for an error that tonic itself made (unknown method, undecodable or
/// oversized message), which has a code and a text but no details yet.
#[must_use]
pub fn complete_bare_status(code: Code, message: &str, request_id: Uuid) -> Status {
    let (code, name, message) = match code {
        // tonic answers INTERNAL to bytes that are no such message, OUT_OF_RANGE to
        // a message over the size limit: both are the caller's doing.
        Code::Internal => (
            Code::InvalidArgument,
            "ParameterFieldCheckFailed",
            "the request is not a message of this method; check the client's version of the contract"
                .to_owned(),
        ),
        Code::OutOfRange => (Code::InvalidArgument, "ParameterFieldCheckFailed", message.to_owned()),
        Code::Unimplemented => {
            let hint = "no such method; `grpcurl -plaintext ADDRESS list` names them".to_owned();
            (code, "Unimplemented", if message.is_empty() { hint } else { message.to_owned() })
        }
        Code::NotFound => (code, "NotFound", message.to_owned()),
        Code::Cancelled => (code, "Cancelled", message.to_owned()),
        Code::DeadlineExceeded => (code, "DeadlineExceeded", message.to_owned()),
        _ => (code, "InternalError", message.to_owned()),
    };
    let metadata = HashMap::from([
        ("code".to_owned(), name.to_owned()),
        ("request_id".to_owned(), request_id.to_string()),
    ]);
    let details = ErrorDetails::with_error_info(upper_snake(name), DOMAIN, metadata);
    Status::with_error_details(code, message, details)
}

fn log_fault(error: &ApiError, request_id: Uuid) {
    let error = match error {
        ApiError::Store(store) => error_chain(store),
        other => format!("{other:?}"),
    };
    tracing::error!(%request_id, error, "a call failed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_upper_snake_case_of_the_codes() {
        assert_eq!(upper_snake("FindCaBySnError"), "FIND_CA_BY_SN_ERROR");
        assert_eq!(upper_snake("SystemOverFlow"), "SYSTEM_OVER_FLOW");
        assert_eq!(upper_snake("MqttInstanceNotFound"), "MQTT_INSTANCE_NOT_FOUND");
    }

    #[test]
    fn inner_errors_never_reach_the_caller() {
        let secret = "password authentication failed for user catrust";
        let error = ApiError::Store(StoreError::Internal(secret.into()));
        let status = to_status(&error, Uuid::nil());
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("password"));
    }

    #[test]
    fn what_was_lost_with_an_epoch_is_a_revision_that_is_not_there() {
        let (ended, next) = (catrust_domain::LogEpoch::FIRST, catrust_domain::LogEpoch(9));
        let error = ApiError::Store(StoreError::EpochEnded { ended, fork_position: 4, next });
        let status = to_status(&error, Uuid::nil());
        assert_eq!((status.code(), error.codes().1), (Code::OutOfRange, "RevisionNotFound"));
        for named in ["epoch 0 ended", "position 4", "epoch 9"] {
            assert!(status.message().contains(named), "{}", status.message());
        }
    }

    #[test]
    fn a_rate_limited_caller_learns_the_exact_wait() {
        let retry_after = Duration::from_micros(1_500);
        let error = ApiError::RateLimited { retry_after, per_second: 500, user: "u".into() };
        let status = to_status(&error, Uuid::nil());
        let details = status.get_error_details();
        assert_eq!(details.retry_info().and_then(|info| info.retry_delay), Some(retry_after));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "2");
    }
}
