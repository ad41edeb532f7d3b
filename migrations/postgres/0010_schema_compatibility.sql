-- Schema version 10: which programs may use a schema.
--
-- A migration only adds, so that programs of the version before run on beside those of the next
-- and may start again meanwhile. One that takes something away comes a version later, and raises
-- oldest_schema_version: programs older than that are refused.

ALTER TABLE log_identity ADD COLUMN oldest_schema_version bigint NOT NULL DEFAULT 10;
COMMENT ON COLUMN log_identity.oldest_schema_version IS 'Schema version of the oldest program that may use this database, whatever its own version is. Raised by migrations that take something away.';

-- Since this version.
COMMENT ON COLUMN events.occurred_at IS 'When it was committed, by the clock of the database, read under the append lock; before version 10 by that of the server that did it. Never decreases with position.';
