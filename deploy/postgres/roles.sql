-- Least rights for the servers: run once, as the owner of the tables (whoever runs
-- `catrust-server migrate`) with the right to create roles, and again after each
-- migration that adds a table:
--
--     psql --dbname catrust --file deploy/postgres/roles.sql
--
-- Then let the servers log in as catrust_app (give it a password, or a client
-- certificate, or a pg_hba rule), and keep the owner's credentials for migrations.
-- One transaction, so that running it again does not disturb servers at work.

BEGIN;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'catrust_app') THEN
        CREATE ROLE catrust_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION;
    END IF;
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM catrust_app;

-- The log: append and read. No UPDATE, DELETE or TRUNCATE, whatever the trigger says.
GRANT SELECT, INSERT ON events TO catrust_app;

-- Which log this is, and which schema version, read at start; a rebuild counts itself.
GRANT SELECT ON log_identity, _sqlx_migrations TO catrust_app;
GRANT UPDATE (read_model_generation) ON log_identity TO catrust_app;

-- The read model: kept in step with the log, rebuilt by `catrust-server rebuild`.
GRANT SELECT, INSERT, UPDATE, DELETE ON instances, ca_certificates, spent_register_codes TO catrust_app;

-- The Merkle tree over the log: built once, never changed.
GRANT SELECT, INSERT ON tree_nodes TO catrust_app;

-- Stored replies: written once, pruned by age.
GRANT SELECT, INSERT, DELETE ON replies TO catrust_app;

-- What brokers say: one row per broker, forgotten by age.
GRANT SELECT, INSERT, UPDATE, DELETE ON broker_receipts TO catrust_app;

COMMIT;
