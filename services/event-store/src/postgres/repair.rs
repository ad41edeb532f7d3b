//! Writes rows of the read model for a rebuild.

use catrust_domain::{CaCertificate, Instance};
use sqlx::PgConnection;
use sqlx::postgres::{PgConnectOptions, PgRow};

use super::error::store_error;
use super::statement::{Statement, column};
use super::{append, session, write};
use crate::StoreError;
use crate::rebuild::Repair;
use crate::rows::{Bind, Rows};

/// A connection set up as the appender's, for one rebuild.
pub(super) struct Repairer(PgConnection);

impl Repairer {
    pub(super) async fn open(options: &PgConnectOptions) -> Result<Self, StoreError> {
        session::open_repairer(options).await.map(Self)
    }

    async fn run(&mut self, part: impl FnOnce(&mut Statement)) -> Result<(), StoreError> {
        let mut statement = Statement::default();
        part(&mut statement);
        statement.fetch(&mut self.0).await.map(drop)
    }
}

impl Rows for Repairer {
    type Row = PgRow;

    async fn rows(&mut self, sql: &'static str, binds: &[Bind<'_>]) -> Result<Vec<PgRow>, StoreError> {
        self.0.rows(sql, binds).await
    }
}

impl Repair for Repairer {
    async fn begin(&mut self) -> Result<(), StoreError> {
        append::lock(&mut self.0).await.map_err(append::Failure::into_error)
    }

    async fn put_instances(&mut self, rows: &[&Instance]) -> Result<(), StoreError> {
        self.run(|statement| write::put_instances(statement, rows)).await
    }

    async fn put_certificates(&mut self, rows: &[&CaCertificate]) -> Result<(), StoreError> {
        self.run(|statement| write::put_certificates(statement, rows)).await
    }

    async fn put_spent_codes(&mut self, rows: &[(&str, &str, u64)]) -> Result<(), StoreError> {
        self.run(|statement| write::put_spent_codes(statement, rows)).await
    }

    async fn delete_instances(&mut self, ids: &[&str]) -> Result<(), StoreError> {
        self.run(|statement| {
            let ids = column!(Text, ids, id => *id);
            statement.push("DELETE FROM instances AS t USING ").unnest(vec![("instance_id", ids)]);
            statement.push(" WHERE t.instance_id = u.instance_id");
        })
        .await
    }

    async fn delete_certificates(&mut self, keys: &[(&str, &str)]) -> Result<(), StoreError> {
        self.run(|statement| write::delete_certificates(statement, keys)).await
    }

    async fn delete_spent_codes(&mut self, keys: &[(&str, &str)]) -> Result<(), StoreError> {
        self.run(|statement| {
            let keys = vec![
                ("instance_id", column!(Text, keys, (id, _) => *id)),
                ("register_code", column!(Text, keys, (_, code) => *code)),
            ];
            statement.push("DELETE FROM spent_register_codes AS t USING ").unnest(keys);
            statement.push(" WHERE t.instance_id = u.instance_id AND t.register_code = u.register_code");
        })
        .await
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        // Servers that remember rows notice by it that those are no longer true.
        let statements = "UPDATE log_identity SET read_model_generation = read_model_generation + 1; COMMIT";
        sqlx::raw_sql(statements).execute(&mut self.0).await.map_err(store_error).map(drop)
    }
}
