//! What policies are asked.

use std::fmt;
use std::net::IpAddr;

use crate::Action;

/// May this principal perform this action on this instance, from there, at that time?
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// Name of the principal.
    pub principal: &'a str,
    /// Account of the principal. Its policies decide, whoever owns the instance.
    pub account_id: &'a str,
    /// Whether the principal is an operator of catrust itself.
    pub operator: bool,
    /// What is to be done. Dependent actions are requests of their own.
    pub action: Action,
    /// What it is to be done to.
    pub resource: Resource<'a>,
    /// Where the call comes from. An IPv4-mapped IPv6 address counts as IPv4.
    /// Without one, conditions on it hold in denials and in nothing else.
    pub source_ip: Option<IpAddr>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub time_ms: i64,
}

/// An MQTT instance as policies name it. Segments MUST NOT hold a colon. `*` in a segment
/// is taken literally: a call about all instances, which only patterns for all allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    /// Region.
    pub region_id: &'a str,
    /// Account that owns it.
    pub account_id: &'a str,
    /// Instance.
    pub instance_id: &'a str,
}

impl<'a> Resource<'a> {
    /// Reads `acs:mq:REGION:ACCOUNT:INSTANCE`; `None` where the text is not that.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut segments = text.strip_prefix("acs:mq:")?.split(':');
        let mut next = || segments.next().filter(|segment| !segment.is_empty());
        let resource = Self { region_id: next()?, account_id: next()?, instance_id: next()? };
        segments.next().is_none().then_some(resource)
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acs:mq:{}:{}:{}", self.region_id, self.account_id, self.instance_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_read_as_it_is_written() {
        let text = "acs:mq:cn-hangzhou:1234:fleet-a";
        assert_eq!(Resource::parse(text).unwrap().to_string(), text);
        for bad in ["", "acs:mq:", "acs:mq:r:a", "acs:mq:r::i", "acs:mq:r:a:i:x", "acs:oss:r:a:i"] {
            assert_eq!(Resource::parse(bad), None, "{bad}");
        }
    }
}
