-- Schema version 9: log epochs, and evidence that the log was set back.
--
-- A file that is copied back from a backup leaves a log that is shorter than, or other than,
-- the one that was acknowledged. A new epoch of the log then begins with a row
-- `LogEpochBegan`; a revision (of events and of instances) carries its epoch in its upper 32
-- bits, and in a later epoch is called by the same count in that epoch. Such a row belongs
-- to the instance `_log` and the stream `log`.

-- The few rows that begin a log epoch: the newest is looked at by each append and by reads.
CREATE INDEX events_epoch_begins ON events (position) WHERE event_type = 'LogEpochBegan';

-- What shows that the log once had an end or a row which it no longer has. While a row
-- contradicts the log no server acknowledges or signs anything. A server adds one only where
-- it reaches further than every believed one of the same epoch, kind and instance; rows are
-- never changed or removed, and mean nothing once a later epoch has begun.
CREATE TABLE log_evidence (
    -- Order in which the rows came.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Log epoch that it belongs to.
    log_epoch INTEGER NOT NULL CHECK (log_epoch BETWEEN 0 AND 4294967295),
    -- What it shows: ROW, a row of the log; TRUST, the trust of an instance; CHECKPOINT, a
    -- checkpoint over the whole log.
    mark TEXT NOT NULL CHECK (mark IN ('ROW', 'TRUST', 'CHECKPOINT')),
    -- Instance, for TRUST; otherwise empty.
    instance_id TEXT NOT NULL,
    -- Position up to which the log reached: of the row, of the change that made the
    -- revision, or the size of the checkpoint.
    position INTEGER NOT NULL CHECK (position > 0),
    -- Revision of the instance, for TRUST; otherwise 0.
    revision INTEGER NOT NULL CHECK (revision >= 0),
    -- Hash of the row, digest of the trust bundle, or root of the checkpoint.
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    -- Who shows it, for people.
    witness TEXT NOT NULL,
    -- When the server that added it saw it, microseconds since 1970.
    seen_at INTEGER NOT NULL,
    -- Server key that signed it.
    key_id TEXT NOT NULL,
    -- Signature over it and log_id (context catrust/log-evidence/v1). A row whose signature
    -- is not believed is told, and ignored.
    seal BLOB NOT NULL CHECK (length(seal) <= 512),
    CHECK ((mark = 'TRUST') = (instance_id <> ''))
) STRICT;
