-- Schema version 10: which programs may use a schema.
--
-- A migration only adds, so that programs of the version before run on beside those of the next
-- and may start again meanwhile. One that takes something away comes a version later, and raises
-- oldest_schema_version: programs older than that are refused.

ALTER TABLE log_identity ADD COLUMN oldest_schema_version INTEGER NOT NULL DEFAULT 10;
