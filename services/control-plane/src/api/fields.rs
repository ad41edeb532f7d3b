//! Request fields: parsed once, all violations told together.

use catrust_domain::{AccountId, Edition, InactivationScope, InstanceId, RegionId, SerialNumber};
use catrust_proto::v1;
use uuid::Uuid;

use crate::error::ApiError;

/// Longest name of a CA certificate, in characters.
const MAX_NAME_LENGTH: usize = 64;
/// Longest reason, in characters.
const MAX_REASON_LENGTH: usize = 512;
/// Items of a page where the caller does not say.
const DEFAULT_PAGE_SIZE: u32 = 50;
/// Most items of a page.
const MAX_PAGE_SIZE: i32 = 100;

/// Collects what is wrong with the fields of a request. A parser gives `None` for
/// a field that it has complained about.
#[derive(Default)]
pub(crate) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    /// The error that names every violation. To be called when a parser gave `None`.
    pub fn into_error(self) -> ApiError {
        ApiError::Fields(self.0)
    }

    fn parse<T>(&mut self, field: &'static str, parsed: Result<T, impl ToString>) -> Option<T> {
        parsed.map_err(|problem| self.0.push((field, problem.to_string()))).ok()
    }

    pub fn instance_id(&mut self, text: &str) -> Option<InstanceId> {
        self.parse("mqtt_instance_id", text.parse::<InstanceId>())
    }

    pub fn region_id(&mut self, text: &str) -> Option<RegionId> {
        self.parse("region_id", text.parse::<RegionId>())
    }

    pub fn owner_account_id(&mut self, text: &str) -> Option<AccountId> {
        self.parse("owner_account_id", text.parse::<AccountId>())
    }

    /// Empty: absent. A broker id is only named in logs here, but checked as one.
    pub fn broker_id(&mut self, text: &str) -> Option<()> {
        if text.is_empty() {
            return Some(());
        }
        self.parse("broker_id", text.parse::<catrust_domain::BrokerId>()).map(drop)
    }

    pub fn sn(&mut self, text: &str) -> Option<SerialNumber> {
        self.parse("sn", text.parse::<SerialNumber>())
    }

    /// Empty: every serial number.
    pub fn optional_sn(&mut self, text: &str) -> Option<Option<SerialNumber>> {
        if text.is_empty() { Some(None) } else { self.sn(text).map(Some) }
    }

    pub fn ca_name(&mut self, text: String) -> Option<String> {
        let checked = match text.chars().count() {
            0 => Err("is required"),
            length if length > MAX_NAME_LENGTH => Err("is longer than 64 characters"),
            _ => printable(text),
        };
        self.parse("ca_name", checked)
    }

    pub fn reason(&mut self, text: String) -> Option<String> {
        let checked = if text.chars().count() > MAX_REASON_LENGTH {
            Err("is longer than 512 characters")
        } else {
            printable(text)
        };
        self.parse("reason", checked)
    }

    /// Empty: the server makes one.
    pub fn request_id(&mut self, text: &str) -> Option<Option<Uuid>> {
        if text.is_empty() {
            return Some(None);
        }
        // Other spellings of a UUID (braces, `urn:uuid:`) would come back in another
        // form than they were sent in.
        let parsed = (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten();
        self.parse("request_id", parsed.ok_or("is not a UUID like 020f6a43-19e6-4b6e-b846-44eb31df0000"))
            .map(Some)
    }

    pub fn edition(&mut self, value: i32) -> Option<Edition> {
        let edition = self.optional_edition(value)?;
        self.parse("edition", edition.ok_or("is required"))
    }

    /// Unspecified: as it is.
    pub fn optional_edition(&mut self, value: i32) -> Option<Option<Edition>> {
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
    pub fn scope(&mut self, value: i32) -> Option<InactivationScope> {
        let known = v1::InactivationScope::try_from(value).map_err(|_| "is no known scope");
        Some(match self.parse("scope", known)? {
            v1::InactivationScope::Unspecified | v1::InactivationScope::Key => InactivationScope::Key,
            v1::InactivationScope::Certificate => InactivationScope::Certificate,
        })
    }

    pub fn state(&mut self, value: i32) -> Option<v1::CaCertificateState> {
        self.parse("state", v1::CaCertificateState::try_from(value).map_err(|_| "is no known state"))
    }

    /// 0: the default.
    pub fn page_size(&mut self, value: i32) -> Option<u32> {
        let checked = match value {
            0 => Ok(DEFAULT_PAGE_SIZE),
            1..=MAX_PAGE_SIZE => Ok(value.unsigned_abs()),
            _ => Err("must be 1 to 100, or 0 for the default of 50"),
        };
        self.parse("page_size", checked)
    }

    /// Waiting for the brokers needs their receipts, which are not collected yet.
    /// Refused before anything is changed, so that nobody takes "no answer" for
    /// "applied by all".
    pub fn no_wait(wait: Option<&v1::Wait>) -> Result<(), ApiError> {
        match wait {
            Some(wait) if wait.target != 0 => Err(ApiError::Unimplemented(
                "wait is not available in this version: receipts are not collected yet; leave it unset",
            )),
            _ => Ok(()),
        }
    }
}

/// Control characters would forge lines in logs and on terminals.
fn printable(text: String) -> Result<String, &'static str> {
    if text.chars().any(char::is_control) { Err("contains control characters") } else { Ok(text) }
}
