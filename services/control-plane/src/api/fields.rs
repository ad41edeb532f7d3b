//! Request fields: parsed once, all violations told together.

use std::time::Duration;

use catrust_domain::{
    AccountId, BrokerId, Edition, InactivationScope, InstanceId, RegionId, SerialNumber, Timestamp,
    WaitTarget,
};
use catrust_proto::v1;
use uuid::Uuid;

use crate::error::ApiError;

/// Longest name of a CA certificate, in characters.
const MAX_NAME_LENGTH: usize = 64;
/// Longest reason, in characters.
const MAX_REASON_LENGTH: usize = 512;
/// Longest name of a principal to look for, in bytes.
const MAX_ACTOR_LENGTH: usize = 1_024;
/// Items of a page where the caller does not say.
const DEFAULT_PAGE_SIZE: u32 = 50;
/// Most items of a page.
const MAX_PAGE_SIZE: i32 = 100;
/// How long a call waits for the brokers where the caller does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Collects what is wrong with the fields of a request. A parser gives `None` for
/// a field that it has complained about.
#[derive(Default)]
pub(crate) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    /// The error that names every violation. To be called when a parser gave `None`.
    pub(crate) fn into_error(self) -> ApiError {
        ApiError::Fields(self.0)
    }

    fn parse<T>(&mut self, field: &'static str, parsed: Result<T, impl ToString>) -> Option<T> {
        parsed.map_err(|problem| self.0.push((field, problem.to_string()))).ok()
    }

    pub(crate) fn instance_id(&mut self, text: &str) -> Option<InstanceId> {
        self.parse("mqtt_instance_id", text.parse::<InstanceId>())
    }

    /// The name of an instance that is to be registered.
    pub(crate) fn new_instance_id(&mut self, text: &str) -> Option<InstanceId> {
        let id = self.instance_id(text)?;
        if id.is_reserved() {
            self.complain("mqtt_instance_id", "is reserved for the log itself; choose another");
            return None;
        }
        Some(id)
    }

    pub(crate) fn region_id(&mut self, text: &str) -> Option<RegionId> {
        self.parse("region_id", text.parse::<RegionId>())
    }

    /// Notes what no parser finds: fields that do not go together.
    pub(crate) fn complain(&mut self, field: &'static str, problem: impl Into<String>) {
        self.0.push((field, problem.into()));
    }

    pub(crate) fn account_id(&mut self, text: &str) -> Option<AccountId> {
        self.parse("account_id", text.parse::<AccountId>())
    }

    /// Empty: anybody.
    pub(crate) fn actor(&mut self, field: &'static str, text: &str) -> Option<Option<String>> {
        let checked = if text.len() > MAX_ACTOR_LENGTH {
            Err("is longer than 1,024 bytes")
        } else {
            printable(text.to_owned())
        };
        self.parse(field, checked).map(|actor| Some(actor).filter(|actor| !actor.is_empty()))
    }

    /// Unset: no bound.
    pub(crate) fn time(
        &mut self,
        field: &'static str,
        time: Option<&catrust_proto::Timestamp>,
    ) -> Option<Option<Timestamp>> {
        let Some(time) = time else { return Some(None) };
        let micros = catrust_trust_feed::canonical::micros(time).map(Timestamp::from_micros);
        let in_range = |time: &Timestamp| (Timestamp::FIRST..=Timestamp::LAST).contains(time);
        let checked =
            micros.filter(in_range).ok_or("is not a time of the years 0 to 9999 in whole microseconds");
        self.parse(field, checked).map(Some)
    }

    pub(crate) fn owner_account_id(&mut self, text: &str) -> Option<AccountId> {
        self.parse("owner_account_id", text.parse::<AccountId>())
    }

    /// Empty: absent.
    pub(crate) fn broker_id(&mut self, text: &str) -> Option<Option<BrokerId>> {
        if text.is_empty() {
            return Some(None);
        }
        self.parse("broker_id", text.parse()).map(Some)
    }

    pub(crate) fn sn(&mut self, text: &str) -> Option<SerialNumber> {
        self.parse("sn", text.parse::<SerialNumber>())
    }

    /// Empty: every serial number.
    pub(crate) fn optional_sn(&mut self, text: &str) -> Option<Option<SerialNumber>> {
        if text.is_empty() { Some(None) } else { self.sn(text).map(Some) }
    }

    pub(crate) fn ca_name(&mut self, text: String) -> Option<String> {
        let checked = match text.chars().count() {
            0 => Err("is required"),
            length if length > MAX_NAME_LENGTH => Err("is longer than 64 characters"),
            _ => printable(text),
        };
        self.parse("ca_name", checked)
    }

    pub(crate) fn reason(&mut self, text: String) -> Option<String> {
        let checked = if text.chars().count() > MAX_REASON_LENGTH {
            Err("is longer than 512 characters")
        } else {
            printable(text)
        };
        self.parse("reason", checked)
    }

    /// Empty: the server makes one.
    pub(crate) fn request_id(&mut self, text: &str) -> Option<Option<Uuid>> {
        if text.is_empty() {
            return Some(None);
        }
        // Other spellings of a UUID (braces, `urn:uuid:`) would come back in another
        // form than they were sent in.
        let parsed = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
        self.parse("request_id", parsed.ok_or("is not a UUID like 020f6a43-19e6-4b6e-b846-44eb31df0000"))
            .map(Some)
    }

    pub(crate) fn edition(&mut self, value: i32) -> Option<Edition> {
        let edition = self.optional_edition(value)?;
        self.parse("edition", edition.ok_or("is required"))
    }

    /// Unspecified: as it is.
    pub(crate) fn optional_edition(&mut self, value: i32) -> Option<Option<Edition>> {
        let edition =
            self.parse("edition", v1::Edition::try_from(value).map_err(|_| "is no known edition"))?;
        Some(match edition {
            v1::Edition::Unspecified => None,
            v1::Edition::Platinum => Some(Edition::Platinum),
            v1::Edition::Professional => Some(Edition::Professional),
            v1::Edition::Standard => Some(Edition::Standard),
        })
    }

    /// Unspecified: the key.
    pub(crate) fn scope(&mut self, value: i32) -> Option<InactivationScope> {
        let known = v1::InactivationScope::try_from(value).map_err(|_| "is no known scope");
        Some(match self.parse("scope", known)? {
            v1::InactivationScope::Unspecified | v1::InactivationScope::Key => InactivationScope::Key,
            v1::InactivationScope::Certificate => InactivationScope::Certificate,
        })
    }

    pub(crate) fn state(&mut self, value: i32) -> Option<v1::CaCertificateState> {
        self.parse("state", v1::CaCertificateState::try_from(value).map_err(|_| "is no known state"))
    }

    /// 0: the default.
    pub(crate) fn page_size(&mut self, value: i32) -> Option<u32> {
        let checked = match value {
            0 => Ok(DEFAULT_PAGE_SIZE),
            1..=MAX_PAGE_SIZE => Ok(value.unsigned_abs()),
            _ => Err("must be 1 to 100, or 0 for the default of 50"),
        };
        self.parse("page_size", checked)
    }

    /// `None`: not at all.
    pub(crate) fn wait(&mut self, wait: Option<&v1::Wait>) -> Option<Option<WaitFor>> {
        let Some(wait) = wait else { return Some(None) };
        let target = v1::wait::Target::try_from(wait.target).map_err(|_| "is no known target");
        let target = self.parse("wait.target", target);
        let timeout = self.parse("wait.timeout", wait_timeout(wait.timeout.as_ref()));
        let (target, timeout) = (target?, timeout?);
        let target = match target {
            v1::wait::Target::Unspecified => return Some(None),
            v1::wait::Target::AppliedByAll => WaitTarget::All,
            v1::wait::Target::AppliedByQuorum => WaitTarget::Quorum,
        };
        Some(Some(WaitFor { target, timeout }))
    }
}

/// What a caller wants to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitFor {
    pub(crate) target: WaitTarget,
    /// How long at most.
    pub(crate) timeout: Duration,
}

fn wait_timeout(timeout: Option<&pbjson_types::Duration>) -> Result<Duration, &'static str> {
    let Some(timeout) = timeout else { return Ok(DEFAULT_WAIT) };
    let whole = u64::try_from(timeout.seconds).ok().zip(u32::try_from(timeout.nanos).ok());
    whole
        .filter(|(_, nanos)| *nanos < 1_000_000_000)
        .map(|(seconds, nanos)| Duration::new(seconds, nanos))
        .filter(|timeout| (SHORTEST_WAIT..=LONGEST_WAIT).contains(timeout))
        .ok_or("must be 1 ms to 60 s, or unset for the default of 10 s")
}

/// Control characters would forge lines in logs and on terminals.
fn printable(text: String) -> Result<String, &'static str> {
    if text.chars().any(char::is_control) { Err("contains control characters") } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(target: i32, timeout: Option<(i64, i32)>) -> Result<Option<WaitFor>, Vec<&'static str>> {
        let timeout = timeout.map(|(seconds, nanos)| pbjson_types::Duration { seconds, nanos });
        let mut fields = Fields::default();
        let parsed = fields.wait(Some(&v1::Wait { target, timeout }));
        parsed.ok_or_else(|| fields.0.into_iter().map(|(field, _)| field).collect())
    }

    #[test]
    fn a_wait_has_a_target_and_a_bounded_timeout() {
        let all = |timeout| Ok(Some(WaitFor { target: WaitTarget::All, timeout }));
        assert_eq!(Fields::default().wait(None), Some(None));
        assert_eq!(wait(0, Some((1, 0))), Ok(None), "no target: no wait");
        assert_eq!(wait(1, None), all(Duration::from_secs(10)));
        assert_eq!(wait(1, Some((60, 0))), all(Duration::from_secs(60)));
        assert_eq!(wait(1, Some((0, 1_000_000))), all(Duration::from_millis(1)));
        for timeout in [(0, 0), (0, 999_999), (60, 1), (-1, 0), (1, -1), (1, 1_000_000_000), (i64::MAX, 0)] {
            assert_eq!(wait(2, Some(timeout)), Err(vec!["wait.timeout"]), "{timeout:?}");
        }
        assert_eq!(wait(9, Some((0, 0))), Err(vec!["wait.target", "wait.timeout"]));
    }

    #[test]
    fn the_name_that_the_log_keeps_for_itself_is_refused() {
        let mut fields = Fields::default();
        assert_eq!(fields.new_instance_id("_log"), None);
        assert_eq!(fields.0.len(), 1);
        assert_eq!(fields.0[0].0, "mqtt_instance_id");
        assert!(Fields::default().new_instance_id("log").is_some());
    }
}
