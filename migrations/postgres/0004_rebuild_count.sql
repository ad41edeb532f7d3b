-- Schema version 4: how often the read model was rebuilt.
--
-- A server remembers rows of the read model for as long as nobody else appends. A
-- rebuild changes rows without appending: it counts itself here, under the append lock.

ALTER TABLE log_identity ADD COLUMN read_model_generation bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN log_identity.read_model_generation IS 'Number of rebuilds of the read model. Servers forget the rows that they remember when it changes.';
COMMENT ON TABLE log_identity IS 'Identity of this log: exactly one row. log_id never changes: a reader that meets another one is looking at another log.';
