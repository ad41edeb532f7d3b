-- Schema version 9: log epochs, and evidence that the log was set back.
--
-- A database that is restored, or a failover that loses the last second, leaves a log that
-- is shorter than, or other than, the one that was acknowledged. A new epoch of the log then
-- begins with a row `LogEpochBegan`; a revision carries its epoch in its upper 32 bits.

CREATE INDEX events_epoch_begins ON events (position) WHERE event_type = 'LogEpochBegan';
COMMENT ON INDEX events_epoch_begins IS 'The few rows that begin a log epoch: the newest is looked at by each append and by reads.';

COMMENT ON COLUMN events.revision IS 'Instance revision that the event made: log epoch * 2^32 + count, the count from 1 without gaps; NULL unless the event is a trust change.';
COMMENT ON COLUMN events.stream_id IS 'Aggregate: instance/<instance_id>, ca-certificate/<instance_id>/<SHA-256 of the DER>, or log.';
COMMENT ON COLUMN events.instance_id IS 'MQTT instance that the event belongs to; _log for what happens to the log itself.';
COMMENT ON COLUMN instances.revision IS 'Revision that its last trust change made: log epoch * 2^32 + count. In a later epoch it is called by the same count in that epoch.';

CREATE TABLE log_evidence (
    number      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    log_epoch   bigint      NOT NULL CHECK (log_epoch BETWEEN 0 AND 4294967295),
    mark        text        COLLATE "C" NOT NULL CHECK (mark IN ('ROW', 'TRUST', 'CHECKPOINT')),
    instance_id text        COLLATE "C" NOT NULL,
    position    bigint      NOT NULL CHECK (position > 0),
    revision    bigint      NOT NULL CHECK (revision >= 0),
    digest      bytea       NOT NULL CHECK (octet_length(digest) = 32),
    witness     text        COLLATE "C" NOT NULL,
    seen_at     timestamptz NOT NULL,
    key_id      text        COLLATE "C" NOT NULL,
    seal        bytea       NOT NULL CHECK (octet_length(seal) <= 512),
    CONSTRAINT log_evidence_mark_whole CHECK ((mark = 'TRUST') = (instance_id <> ''))
);
COMMENT ON TABLE log_evidence IS 'What shows that the log once had an end or a row which it no longer has. While a row contradicts the log no server acknowledges or signs anything. A server adds one only where it reaches further than every believed one of the same epoch, kind and instance; rows are never changed or removed, and mean nothing once a later epoch has begun.';
COMMENT ON COLUMN log_evidence.number IS 'Order in which the rows came.';
COMMENT ON COLUMN log_evidence.log_epoch IS 'Log epoch that it belongs to.';
COMMENT ON COLUMN log_evidence.mark IS 'What it shows: ROW, a row of the log; TRUST, the trust of an instance; CHECKPOINT, a checkpoint over the whole log.';
COMMENT ON COLUMN log_evidence.instance_id IS 'Instance, for TRUST; otherwise empty.';
COMMENT ON COLUMN log_evidence.position IS 'Position up to which the log reached: of the row, of the change that made the revision, or the size of the checkpoint.';
COMMENT ON COLUMN log_evidence.revision IS 'Revision of the instance, for TRUST; otherwise 0.';
COMMENT ON COLUMN log_evidence.digest IS 'Hash of the row, digest of the trust bundle, or root of the checkpoint.';
COMMENT ON COLUMN log_evidence.witness IS 'Who shows it, for people.';
COMMENT ON COLUMN log_evidence.seen_at IS 'When the server that added it saw it.';
COMMENT ON COLUMN log_evidence.key_id IS 'Server key that signed it.';
COMMENT ON COLUMN log_evidence.seal IS 'Signature over it and log_id (context catrust/log-evidence/v1). A row whose signature is not believed is told, and ignored.';
