-- Least rights in the database: run as the owner of the tables (whoever runs
-- `catrust-server migrate`) with the right to create roles, and again after each
-- migration that adds a table:
--
--     psql --dbname catrust --file deploy/postgres/roles.sql
--
-- | role            | for                                               | may write                     |
-- |-----------------|---------------------------------------------------|-------------------------------|
-- | catrust_app     | `catrust-server serve` and `checkpoint`           | append; keep the read model   |
-- | catrust_rebuild | `catrust-server rebuild`, when an operator has to | the read model                |
-- | catrust_audit   | `catrust-server verify` and `export`              | nothing                       |
--
-- Give each a password, or a client certificate, or a pg_hba rule, and keep the owner's
-- credentials for migrations. One transaction, so that running it again does not disturb
-- servers at work. Rights that somebody gave them besides are taken away.

BEGIN;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['catrust_app', 'catrust_rebuild', 'catrust_audit'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format(
                    'CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- Somebody else made it just now.
            END;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM catrust_app, catrust_rebuild, catrust_audit;

-- Which log this is, and which schema version: read by each of them at start.
GRANT SELECT ON log_identity, _sqlx_migrations TO catrust_app, catrust_rebuild, catrust_audit;

-- The log: append and read. No UPDATE, DELETE or TRUNCATE, whatever the trigger says.
GRANT SELECT ON events TO catrust_app, catrust_rebuild, catrust_audit;
GRANT INSERT ON events TO catrust_app;

-- The read model: kept in step with the log.
GRANT SELECT ON instances, ca_certificates, spent_register_codes TO catrust_app, catrust_rebuild, catrust_audit;
GRANT INSERT, UPDATE ON instances TO catrust_app;
GRANT INSERT, UPDATE, DELETE ON ca_certificates TO catrust_app;
GRANT INSERT ON spent_register_codes TO catrust_app;

-- A rebuild replaces any of its rows, and counts itself.
GRANT INSERT, UPDATE, DELETE ON instances, ca_certificates, spent_register_codes TO catrust_rebuild;
GRANT UPDATE (read_model_generation) ON log_identity TO catrust_rebuild;

-- The Merkle tree over the log: built once, never changed.
GRANT SELECT ON tree_nodes TO catrust_app, catrust_audit;
GRANT INSERT ON tree_nodes TO catrust_app;

-- What shows that the log was set back: added once, never changed. All but the number, by which
-- the newest rows are found.
GRANT SELECT ON log_evidence TO catrust_app, catrust_audit;
REVOKE INSERT ON log_evidence FROM catrust_app;
GRANT INSERT (log_epoch, mark, instance_id, position, revision, digest, witness, seen_at, key_id, seal)
    ON log_evidence TO catrust_app;

-- Refused calls: bounded, the oldest forgotten.
GRANT SELECT, INSERT, DELETE ON refusals TO catrust_app;

-- Stored replies: written once, pruned by age.
GRANT SELECT, INSERT, DELETE ON replies TO catrust_app;

-- What brokers say: one row per broker, forgotten by age.
GRANT SELECT, INSERT, UPDATE, DELETE ON broker_receipts TO catrust_app;

COMMIT;
