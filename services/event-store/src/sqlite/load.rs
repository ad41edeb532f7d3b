//! Loads what a batch has to see. There is no network in between: a statement per
//! table, each with its keys as one JSON parameter.

use catrust_domain::batch::{Needs, WorkingSet};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{CaCertificate, Instance, LogEpoch, LogHead, Timestamp};
use serde::Serialize;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::StoreError;
use crate::queries::{Query, queries};
use crate::row::{StoredRow as _, names_of};
use crate::rows::Rows as _;
use crate::tables::{ReplyRow, SpentRegisterCode, StreamEnd};
use crate::{reads, replies};

// CROSS JOIN keeps SQLite from scanning the table and looking the keys up in it.
queries! { LIST:
    INSTANCES = format!(
        "SELECT {} FROM json_each($1) AS u CROSS JOIN instances AS i ON i.instance_id = u.value",
        names_of::<Instance>("i."),
    );

    /// Every certificate with the key of a wanted one, itself included. By rowid, so that
    /// twins which are both wanted are found once without comparing whole rows.
    CERTIFICATES_BY_SN = format!(
        "SELECT {} FROM ca_certificates AS c WHERE c.rowid IN (\
         SELECT twin.rowid FROM json_each($1) AS u CROSS JOIN ca_certificates AS known \
         ON known.instance_id = u.value ->> 0 AND known.sn = u.value ->> 1 \
         CROSS JOIN ca_certificates AS twin \
         ON twin.instance_id = known.instance_id AND twin.spki_sha256 = known.spki_sha256)",
        names_of::<CaCertificate>("c."),
    );

    CERTIFICATES_BY_KEY = format!(
        "SELECT {} FROM json_each($1) AS u CROSS JOIN ca_certificates AS c \
         ON c.instance_id = u.value ->> 0 AND c.spki_sha256 = unhex(u.value ->> 1)",
        names_of::<CaCertificate>("c."),
    );

    REGISTER_CODES = format!(
        "SELECT {} FROM json_each($1) AS u CROSS JOIN spent_register_codes AS s \
         ON s.instance_id = u.value ->> 0 AND s.register_code = u.value ->> 1",
        names_of::<SpentRegisterCode>("s."),
    );

    STREAMS = "SELECT u.value, coalesce((SELECT e.stream_version FROM events AS e \
         WHERE e.stream_id = u.value ORDER BY e.stream_version DESC LIMIT 1), 0) FROM json_each($1) AS u";

    REPLIES = format!(
        "SELECT {}, e.event_type, e.schema_version, e.payload FROM json_each($1) AS u \
         CROSS JOIN replies AS r ON r.account_id = u.value ->> 0 AND r.request_id = u.value ->> 1 \
         LEFT JOIN events AS e ON e.position = r.reply ->> 'position'",
        names_of::<ReplyRow>("r."),
    );
}

/// Loads the head of the log and what `needs` names, ready to run commands on.
/// MUST be called in a transaction that holds the write lock.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    needs: &Needs,
    epoch: LogEpoch,
    now: Timestamp,
) -> Result<(LogHead, WorkingSet), StoreError> {
    let head = reads::head(connection).await?;
    let mut model = ReadModel::new();
    for row in matching(connection, &INSTANCES, needs.instances.iter().collect()).await? {
        model.insert_instance(Instance::read(&row, 0)?);
    }
    let by_sn = needs.certificates.iter().map(|(id, sn)| (id, sn)).collect();
    for row in matching(connection, &CERTIFICATES_BY_SN, by_sn).await? {
        model.insert_certificate(CaCertificate::read(&row, 0)?);
    }
    let by_key = needs.keys.iter().map(|(id, key)| (id, key.to_string())).collect();
    for row in matching(connection, &CERTIFICATES_BY_KEY, by_key).await? {
        model.insert_certificate(CaCertificate::read(&row, 0)?);
    }
    for row in matching(connection, &REGISTER_CODES, needs.register_codes.iter().collect()).await? {
        let code = SpentRegisterCode::read(&row, 0)?;
        model.insert_spent_register_code(code.instance_id, code.register_code, code.position);
    }
    let mut set = WorkingSet::new(head, epoch, now, model);
    for row in matching(connection, &STREAMS, needs.streams.iter().collect()).await? {
        let StreamEnd { stream_id, stream_version } = StreamEnd::read(&row, 0)?;
        set.insert_stream_version(stream_id, stream_version);
    }
    let keys = needs.replies.iter().map(|key| (&key.account_id, key.request_id)).collect();
    for row in matching(connection, &REPLIES, keys).await? {
        set.insert_reply(replies::read(&row, 0, ReplyRow::WIDTH)?);
    }
    Ok((head, set))
}

/// Runs a statement over `keys`; not at all where there are none.
async fn matching<K: Serialize>(
    connection: &mut SqliteConnection,
    query: &'static Query,
    keys: Vec<K>,
) -> Result<Vec<SqliteRow>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys = serde_json::to_string(&keys).map_err(|error| StoreError::Internal(error.into()))?;
    connection.rows(query, &[(&keys).into()]).await
}
