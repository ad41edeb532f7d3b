-- Schema version 2: indexes for two readers that scanned before.

-- History of one CA certificate by its serial number, deleted ones included:
-- trust changes of (instance_id, sn) after a position, ascending.
CREATE INDEX events_by_serial_number ON events (instance_id, sn, position) WHERE sn IS NOT NULL;

-- Pruning: the oldest stored replies first.
CREATE INDEX replies_by_age ON replies (created_at);
