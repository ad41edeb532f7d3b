//! The reading SQL, which both engines understand word for word.
//!
//! Parameters are `$1`, `$2`, … in both. The order of a column list is the order
//! in which [`crate::columns`] reads it.

/// Names columns, each after `$alias`.
macro_rules! columns {
    ($alias:literal; $first:ident $(, $next:ident)*) => {
        concat!($alias, stringify!($first) $(, ", ", $alias, stringify!($next))*)
    };
}

/// Columns of `events`, in the order of the table and of the hash.
macro_rules! event_columns {
    ($alias:literal) => {
        $crate::queries::columns!($alias;
            position, event_id, stream_id, stream_version, instance_id, revision, bundle_digest, sn,
            event_type, schema_version, payload, actor, account_id, policy_version, source_address,
            request_id, traceparent, occurred_at, hash)
    };
}

/// Columns of `instances`.
macro_rules! instance_columns {
    ($alias:literal) => {
        $crate::queries::columns!($alias;
            instance_id, region_id, owner_account_id, edition, revision, trust_position, bundle_digest,
            set_hash, certificate_count, unspent_register_codes, registered_at, registered_position,
            updated_at, updated_position, stream_version)
    };
}

/// Columns of `ca_certificates` that the certificate itself says.
macro_rules! facts_columns {
    ($alias:literal) => {
        $crate::queries::columns!($alias;
            sn, sha256, spki_sha256, subject, subject_key_id, issuer, not_before, not_after, ca_content)
    };
}

/// Columns of `ca_certificates`.
macro_rules! certificate_columns {
    ($alias:literal) => {
        concat!(
            $crate::queries::columns!($alias; instance_id),
            ", ",
            $crate::queries::facts_columns!($alias),
            ", ",
            $crate::queries::columns!($alias;
                ca_name, register_code, state, inactivation_scope, registered_at, registered_position,
                state_changed_at, state_changed_by, state_reason, revision, position, stream_version)
        )
    };
}

/// Columns of `broker_receipts`.
macro_rules! broker_columns {
    ($alias:literal) => {
        $crate::queries::columns!($alias;
            instance_id, broker_id, revision, digest, applied_at, sessions_cut, refused_revision, refusal,
            refused_at, outcome, enforcement, sessions_open, received_at)
    };
}

pub(crate) use {
    broker_columns, certificate_columns, columns, event_columns, facts_columns, instance_columns,
};

/// Number of columns of `instance_columns!`.
pub(crate) const INSTANCE_WIDTH: usize = 15;
/// Number of columns of `certificate_columns!`.
pub(crate) const CERTIFICATE_WIDTH: usize = 22;
/// Number of columns of `broker_columns!`.
pub(crate) const BROKER_WIDTH: usize = 13;

pub(crate) const LOG_ID: &str = "SELECT log_id FROM log_identity";

pub(crate) const HEAD: &str = "SELECT position, hash, occurred_at FROM events ORDER BY position DESC LIMIT 1";

/// $1 position, $2 limit.
pub(crate) const EVENTS_AFTER: &str =
    concat!("SELECT ", event_columns!(""), " FROM events WHERE position > $1 ORDER BY position LIMIT $2");

/// $1 position, $2 limit.
pub(crate) const HASHES_AFTER: &str =
    "SELECT position, hash FROM events WHERE position > $1 ORDER BY position LIMIT $2";

/// $1 event id.
pub(crate) const EVENT_BY_ID: &str =
    concat!("SELECT ", event_columns!(""), " FROM events WHERE event_id = $1");

/// $1 level.
pub(crate) const COUNT_TREE_NODES: &str =
    "SELECT coalesce(max(node_index) + 1, 0) FROM tree_nodes WHERE level = $1";

/// $1 level, $2 number, $3 limit.
pub(crate) const TREE_NODES: &str = "SELECT node_index, hash FROM tree_nodes \
     WHERE level = $1 AND node_index >= $2 ORDER BY node_index LIMIT $3";

/// $1 level, $2 number, $3 hash.
pub(crate) const KEEP_TREE_NODE: &str = "INSERT INTO tree_nodes (level, node_index, hash) VALUES ($1, $2, $3) \
     ON CONFLICT DO NOTHING";

/// $1 instance.
pub(crate) const INSTANCE: &str =
    concat!("SELECT ", instance_columns!(""), " FROM instances WHERE instance_id = $1");

/// $1 registration position, $2 limit. One row at least, for the total; its other
/// columns are NULL where the page is empty.
pub(crate) const INSTANCES_PAGE: &str = concat!(
    "SELECT total.items, ",
    instance_columns!("page."),
    " FROM (SELECT count(*) AS items FROM instances) AS total LEFT JOIN (SELECT ",
    instance_columns!(""),
    " FROM instances WHERE registered_position > $1 ORDER BY registered_position LIMIT $2) AS page",
    " ON true ORDER BY page.registered_position"
);

/// Serial numbers of the others with the key of `$alias`, separated by a space.
macro_rules! same_key_sns {
    ($alias:literal) => {
        concat!(
            "(SELECT string_agg(twin.sn, ' ') FROM ca_certificates AS twin WHERE twin.instance_id = ",
            $alias,
            "instance_id AND twin.spki_sha256 = ",
            $alias,
            "spki_sha256 AND twin.sn <> ",
            $alias,
            "sn)"
        )
    };
}

/// $1 instance, $2 serial number.
pub(crate) const CERTIFICATE: &str = concat!(
    "SELECT ",
    certificate_columns!("c."),
    ", ",
    same_key_sns!("c."),
    " FROM ca_certificates AS c WHERE c.instance_id = $1 AND c.sn = $2"
);

/// $1 instance, $2 registration position, $3 limit, $4 state or empty. As
/// [`INSTANCES_PAGE`].
pub(crate) const CERTIFICATES_PAGE: &str = concat!(
    "SELECT total.items, ",
    certificate_columns!("page."),
    ", ",
    same_key_sns!("page."),
    " FROM (SELECT count(*) AS items FROM ca_certificates WHERE instance_id = $1 AND ($4 = '' OR state = $4))",
    " AS total LEFT JOIN (SELECT ",
    certificate_columns!(""),
    " FROM ca_certificates WHERE instance_id = $1 AND registered_position > $2 AND ($4 = '' OR state = $4)",
    " ORDER BY registered_position LIMIT $3) AS page ON true ORDER BY page.registered_position"
);

/// $1 instance, $2 revision, $3 limit.
pub(crate) const TRUST_CHANGES_AFTER_REVISION: &str = concat!(
    "SELECT ",
    event_columns!(""),
    " FROM events WHERE instance_id = $1 AND revision > $2 ORDER BY revision LIMIT $3"
);

/// The last `$counter` (revision or position) among the rows of `events` that `$rows`
/// names, whose `$column` is at or below `$bound`; 0 where there is none. Both counters are dense, and positions and times grow
/// with them, so that a bisection finds it in a few index look-ups, without another
/// index on the log.
macro_rules! bisection {
    ($counter:literal, $rows:literal, $column:literal, $bound:literal) => {
        concat!(
            "WITH RECURSIVE bisection(low, high) AS (",
            " SELECT CAST(0 AS bigint),",
            "  coalesce((SELECT max(",
            $counter,
            ") FROM events AS e WHERE ",
            $rows,
            "), CAST(0 AS bigint))",
            " UNION ALL",
            " SELECT CASE WHEN e.",
            $column,
            " <= ",
            $bound,
            " THEN e.",
            $counter,
            " ELSE b.low END,",
            "  CASE WHEN e.",
            $column,
            " <= ",
            $bound,
            " THEN b.high ELSE e.",
            $counter,
            " - 1 END",
            " FROM bisection AS b JOIN events AS e",
            "  ON ",
            $rows,
            " AND e.",
            $counter,
            " = (b.low + b.high + 1) / 2",
            " WHERE b.low < b.high)",
            " SELECT low FROM bisection WHERE low = high"
        )
    };
}

/// $1 instance, $2 position.
pub(crate) const REVISION_AT_POSITION: &str = bisection!("revision", "e.instance_id = $1", "position", "$2");
/// $1 instance, $2 time.
pub(crate) const REVISION_AT_TIME: &str = bisection!("revision", "e.instance_id = $1", "occurred_at", "$2");
/// $1 time.
pub(crate) const POSITION_AT_TIME: &str = bisection!("position", "e.position > 0", "occurred_at", "$1");

/// $1 instance.
pub(crate) const LAST_REVISION: &str = "SELECT coalesce(max(revision), 0) FROM events WHERE instance_id = $1";

/// $1 instance.
pub(crate) const REGISTERED_AT: &str = "SELECT registered_at FROM instances WHERE instance_id = $1";

/// $1 instance. One row at least where the instance exists; one statement, hence
/// one snapshot.
pub(crate) const BUNDLE_NOW: &str = concat!(
    "SELECT i.revision, i.trust_position, i.bundle_digest, ",
    facts_columns!("c."),
    ", c.state, c.inactivation_scope",
    " FROM instances AS i LEFT JOIN ca_certificates AS c ON c.instance_id = i.instance_id",
    " WHERE i.instance_id = $1 ORDER BY c.sha256"
);

/// $1 instance, $2 revision: the last trust change of each CA certificate.
pub(crate) const BUNDLE_AT_REVISION: &str = concat!(
    "SELECT ",
    event_columns!(""),
    " FROM events WHERE instance_id = $1 AND revision IN (",
    "SELECT max(revision) FROM events WHERE instance_id = $1 AND revision <= $2 GROUP BY stream_id)"
);

/// $1 account, $2 request id.
pub(crate) const REPLY: &str = "SELECT r.reply, e.event_type, e.schema_version, e.payload FROM replies AS r \
    LEFT JOIN events AS e ON e.position = CAST(r.reply ->> 'position' AS bigint) \
    WHERE r.account_id = $1 AND r.request_id = $2";

/// The brokers that `$which` selects, each with the digest of the log at the revision
/// that it enforces.
macro_rules! fleet_members {
    ($which:literal) => {
        concat!(
            "SELECT ",
            broker_columns!("b."),
            ", e.bundle_digest FROM broker_receipts AS b LEFT JOIN events AS e",
            " ON e.instance_id = b.instance_id AND e.revision = b.revision AND e.revision IS NOT NULL WHERE ",
            $which
        )
    };
}

/// $1 instance.
pub(crate) const BROKERS: &str = fleet_members!("b.instance_id = $1 ORDER BY b.broker_id");

/// $1 instance, $2 broker, $3 limit.
pub(crate) const ALL_BROKERS: &str =
    fleet_members!("(b.instance_id, b.broker_id) > ($1, $2) ORDER BY b.instance_id, b.broker_id LIMIT $3");

/// $1 instance, $2 limit.
pub(crate) const ALL_INSTANCES: &str = concat!(
    "SELECT ",
    instance_columns!(""),
    " FROM instances WHERE instance_id > $1 ORDER BY instance_id LIMIT $2"
);

/// $1 instance, $2 serial number, $3 limit.
pub(crate) const ALL_CERTIFICATES: &str = concat!(
    "SELECT ",
    certificate_columns!(""),
    " FROM ca_certificates WHERE (instance_id, sn) > ($1, $2) ORDER BY instance_id, sn LIMIT $3"
);

/// $1 instance, $2 register code, $3 limit.
pub(crate) const ALL_SPENT_CODES: &str = "SELECT instance_id, register_code, position \
     FROM spent_register_codes WHERE (instance_id, register_code) > ($1, $2) \
     ORDER BY instance_id, register_code LIMIT $3";
