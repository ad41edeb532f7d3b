//! The statements, which both engines understand word for word, but for the few that an
//! engine declares itself.
//!
//! Parameters are `$1`, `$2`, … in both. Every statement is on a list that a test prepares
//! against the migrated schemas, see `statements.rs`.

use std::sync::LazyLock;

use catrust_domain::{BrokerState, CaCertificate, Instance, LogHead, RecordedEvent};

use crate::epochs;
use crate::row::{StoredRow as _, names_of};
use crate::tables::SpentRegisterCode;

/// A statement. Its text is made at the first use.
pub(crate) struct Query(LazyLock<String>);

impl Query {
    /// For [`queries!`], which also puts it on a list.
    pub(crate) const fn new(text: fn() -> String) -> Self {
        Self(LazyLock::new(text))
    }

    pub(crate) fn text(&'static self) -> &'static str {
        &self.0
    }
}

/// Declares statements, and the list of them.
macro_rules! queries {
    ($list:ident: $($(#[$doc:meta])* $name:ident = $text:expr;)+) => {
        $(
            $(#[$doc])*
            pub(crate) static $name: $crate::queries::Query =
                $crate::queries::Query::new(|| $text.into());
        )+

        #[cfg(feature = "contract")]
        pub(crate) const $list: &[&$crate::queries::Query] = &[$(&$name),+];
    };
}

pub(crate) use queries;

queries! { LIST:
    LOG_ID = "SELECT log_id FROM log_identity";

    HEAD = format!("SELECT {} FROM events ORDER BY position DESC LIMIT 1", names_of::<LogHead>(""));

    /// $1 position, $2 limit.
    EVENTS_AFTER = select_events("position > $1 ORDER BY position LIMIT $2");

    /// $1 position, $2 limit. Behind each row the newest begin of an epoch.
    LOG_AFTER = select_log("position > $1 ORDER BY position LIMIT $2");

    /// Behind each row the hash of the one before it.
    EPOCH_BEGINS = format!(
        "SELECT {}, (SELECT before.hash FROM events AS before WHERE before.position = e.position - 1) \
         FROM events AS e WHERE {} ORDER BY e.position",
        names_of::<RecordedEvent>("e."),
        epochs::begins(),
    );

    NEWEST_BEGIN = format!("SELECT {}", epochs::newest_begin());

    /// $1 position, $2 limit.
    HASHES_AFTER = "SELECT position, hash FROM events WHERE position > $1 ORDER BY position LIMIT $2";

    /// $1 event id. Behind the row the newest begin of an epoch.
    EVENT_BY_ID = select_log("event_id = $1");

    /// $1 level.
    COUNT_TREE_NODES = "SELECT coalesce(max(node_index) + 1, 0) FROM tree_nodes WHERE level = $1";

    /// $1 level, $2 number, $3 limit.
    TREE_NODES = "SELECT node_index, hash FROM tree_nodes \
         WHERE level = $1 AND node_index >= $2 ORDER BY node_index LIMIT $3";

    /// $1 level, $2 number, $3 hash.
    KEEP_TREE_NODE = "INSERT INTO tree_nodes (level, node_index, hash) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING";

    /// $1 instance. Behind the row the newest begin of an epoch.
    INSTANCE = format!(
        "SELECT {}, {} FROM instances WHERE instance_id = $1",
        names_of::<Instance>(""),
        epochs::newest_begin(),
    );

    /// $1 registration position, $2 limit. One row at least, for the total; its other
    /// columns are NULL where the page is empty. Behind each the newest begin of an epoch.
    INSTANCES_PAGE = format!(
        "SELECT total.items, {}, {} FROM (SELECT count(*) AS items FROM instances) AS total \
         LEFT JOIN (SELECT {} FROM instances WHERE registered_position > $1 \
         ORDER BY registered_position LIMIT $2) AS page ON true ORDER BY page.registered_position",
        names_of::<Instance>("page."),
        epochs::newest_begin(),
        names_of::<Instance>(""),
    );

    /// $1 instance.
    CERTIFICATES_OF_INSTANCE =
        format!("SELECT {} FROM ca_certificates WHERE instance_id = $1", names_of::<CaCertificate>(""));

    /// $1 instance.
    SPENT_CODES_OF_INSTANCE = format!(
        "SELECT {} FROM {} WHERE instance_id = $1",
        names_of::<SpentRegisterCode>(""),
        SpentRegisterCode::TABLE,
    );

    /// $1 stream.
    STREAM_END = "SELECT coalesce(max(stream_version), 0) FROM events WHERE stream_id = $1";

    /// $1 instance, $2 serial number.
    CERTIFICATE = format!(
        "SELECT {}, {} FROM ca_certificates AS c WHERE c.instance_id = $1 AND c.sn = $2",
        names_of::<CaCertificate>("c."),
        same_key_sns("c"),
    );

    /// $1 instance, $2 registration position, $3 limit, $4 state or empty. As
    /// [`INSTANCES_PAGE`].
    CERTIFICATES_PAGE = format!(
        "SELECT total.items, {}, {} FROM (SELECT count(*) AS items FROM ca_certificates \
         WHERE instance_id = $1 AND ($4 = '' OR state = $4)) AS total LEFT JOIN (SELECT {} \
         FROM ca_certificates WHERE instance_id = $1 AND registered_position > $2 \
         AND ($4 = '' OR state = $4) ORDER BY registered_position LIMIT $3) AS page ON true \
         ORDER BY page.registered_position",
        names_of::<CaCertificate>("page."),
        same_key_sns("page"),
        names_of::<CaCertificate>(""),
    );

    /// $1 instance, $2 revision, $3 limit.
    TRUST_CHANGES_AFTER_REVISION =
        select_events("instance_id = $1 AND revision > $2 ORDER BY revision LIMIT $3");

    /// $1 instance, $2 position.
    REVISION_AT_POSITION = bisection("revision", "e.instance_id = $1", "position <= $2");
    /// $1 instance, $2 time.
    REVISION_AT_TIME = bisection("revision", "e.instance_id = $1", "occurred_at <= $2");
    /// $1 time.
    POSITION_AT_TIME = bisection("position", "e.position > 0", "occurred_at <= $1");

    /// $1 instance, $2 revision.
    POSITION_OF_REVISION = "SELECT position FROM events WHERE instance_id = $1 AND revision = $2";

    /// $1 position.
    TIME_AT_POSITION = "SELECT occurred_at FROM events WHERE position = $1";

    /// $1 instance. Behind it the newest begin of an epoch.
    REGISTERED_AT =
        format!("SELECT registered_at, {} FROM instances WHERE instance_id = $1", epochs::newest_begin());

    /// $1 instance. One row at least where the instance exists; one statement, hence
    /// one snapshot.
    BUNDLE_NOW = format!(
        "SELECT i.revision, i.trust_position, i.bundle_digest, {}, {} FROM instances AS i \
         LEFT JOIN ca_certificates AS c ON c.instance_id = i.instance_id \
         WHERE i.instance_id = $1 ORDER BY c.sha256",
        names_of::<CaCertificate>("c."),
        epochs::newest_begin(),
    );

    /// $1 instance, $2 revision: the last trust change of each CA certificate.
    BUNDLE_AT_REVISION = select_events(
        "instance_id = $1 AND revision IN (SELECT max(revision) FROM events \
         WHERE instance_id = $1 AND revision <= $2 GROUP BY stream_id)"
    );

    /// $1 account, $2 request id.
    REPLY = "SELECT r.reply, e.event_type, e.schema_version, e.payload FROM replies AS r \
         LEFT JOIN events AS e ON e.position = CAST(r.reply ->> 'position' AS bigint) \
         WHERE r.account_id = $1 AND r.request_id = $2";

    /// $1 instance.
    BROKERS = fleet_members("b.instance_id = $1 ORDER BY b.broker_id");

    /// $1 instance, $2 broker, $3 limit.
    ALL_BROKERS =
        fleet_members("(b.instance_id, b.broker_id) > ($1, $2) ORDER BY b.instance_id, b.broker_id LIMIT $3");

    /// $1 time.
    FORGET_BROKERS = "DELETE FROM broker_receipts WHERE received_at < $1";

    /// $1 instance, $2 limit.
    ALL_INSTANCES = format!(
        "SELECT {} FROM instances WHERE instance_id > $1 ORDER BY instance_id LIMIT $2",
        names_of::<Instance>(""),
    );

    /// $1 instance, $2 serial number, $3 limit.
    ALL_CERTIFICATES = format!(
        "SELECT {} FROM ca_certificates WHERE (instance_id, sn) > ($1, $2) ORDER BY instance_id, sn LIMIT $3",
        names_of::<CaCertificate>(""),
    );

    /// $1 instance, $2 register code, $3 limit.
    ALL_SPENT_CODES = format!(
        "SELECT {} FROM {} WHERE (instance_id, register_code) > ($1, $2) \
         ORDER BY instance_id, register_code LIMIT $3",
        names_of::<SpentRegisterCode>(""),
        SpentRegisterCode::TABLE,
    );
}

/// As [`select_events`], with the newest begin of an epoch behind each row.
fn select_log(which: &str) -> String {
    let columns = names_of::<RecordedEvent>("");
    format!("SELECT {columns}, {} FROM events WHERE {which}", epochs::newest_begin())
}

fn select_events(which: &str) -> String {
    format!("SELECT {} FROM events WHERE {which}", names_of::<RecordedEvent>(""))
}

/// Serial numbers of the others with the key of `alias`, separated by a space.
fn same_key_sns(alias: &str) -> String {
    format!(
        "(SELECT string_agg(twin.sn, ' ') FROM ca_certificates AS twin WHERE twin.instance_id = {alias}.instance_id \
         AND twin.spki_sha256 = {alias}.spki_sha256 AND twin.sn <> {alias}.sn)"
    )
}

/// The last `counter` (revision or position) among the rows of `events` that `rows` names,
/// for which `bound` holds; 0 where there is none. Positions and times grow with both
/// counters, so that a bisection finds it in a few index look-ups, without another index
/// on the log. It halves the range of numbers and not of rows: revisions jump where a log
/// epoch begins. A number for which there is no row stands for the row before it.
fn bisection(counter: &str, rows: &str, bound: &str) -> String {
    let middle = "(b.low + (b.high - b.low + 1) / 2)";
    let fits = format!(
        "coalesce((SELECT e.{bound} FROM events AS e WHERE {rows} AND e.{counter} <= {middle} \
         ORDER BY e.{counter} DESC LIMIT 1), true)"
    );
    format!(
        "WITH RECURSIVE bisection(low, high) AS (SELECT CAST(0 AS bigint), \
         coalesce((SELECT max({counter}) FROM events AS e WHERE {rows}), CAST(0 AS bigint)) UNION ALL \
         SELECT CASE WHEN {fits} THEN {middle} ELSE b.low END, CASE WHEN {fits} THEN b.high ELSE {middle} - 1 END \
         FROM bisection AS b WHERE b.low < b.high) \
         SELECT coalesce((SELECT max(e.{counter}) FROM events AS e WHERE {rows} AND e.{counter} <= low), 0) \
         FROM bisection WHERE low = high"
    )
}

/// The brokers that `which` selects, each with the digest of the log at the revision that
/// it enforces: that of the last change before, where the revision is one of an earlier
/// epoch that was lifted.
fn fleet_members(which: &str) -> String {
    format!(
        "SELECT {}, e.bundle_digest FROM broker_receipts AS b LEFT JOIN events AS e \
         ON e.instance_id = b.instance_id AND e.revision IS NOT NULL \
         AND e.revision = (SELECT max(last.revision) FROM events AS last \
         WHERE last.instance_id = b.instance_id AND last.revision <= b.revision) \
         AND (e.revision & 4294967295) = (b.revision & 4294967295) WHERE {which}",
        names_of::<BrokerState>("b."),
    )
}
