-- Schema version 3: what brokers say about the revisions.
--
-- Not part of the event log: nothing here is a fact of ours, `verify` and `rebuild` do
-- not look at it, and losing it costs 5 s, until every agent has said it again.

-- Every row changes every 5 s, and no index covers what changes: with half a page free
-- the new version stays on it, and vacuum finds little to do.
CREATE TABLE broker_receipts (
    instance_id      text        COLLATE "C" NOT NULL,
    broker_id        text        COLLATE "C" NOT NULL,
    revision         bigint      CHECK (revision >= 0),
    digest           bytea       CHECK (octet_length(digest) = 32),
    applied_at       timestamptz,
    sessions_cut     bigint      CHECK (sessions_cut >= 0),
    refused_revision bigint      CHECK (refused_revision >= 0),
    refusal          text        COLLATE "C",
    refused_at       timestamptz,
    outcome          text        COLLATE "C" NOT NULL CHECK (outcome IN ('APPLIED', 'REFUSED')),
    enforcement      text        COLLATE "C" NOT NULL CHECK (enforcement IN ('TLS', 'CONNECT')),
    sessions_open    bigint      NOT NULL CHECK (sessions_open >= 0),
    received_at      timestamptz NOT NULL,
    PRIMARY KEY (instance_id, broker_id),
    CONSTRAINT broker_receipts_applied_whole CHECK (num_nulls(revision, digest, sessions_cut) IN (0, 3)),
    CONSTRAINT broker_receipts_refused_whole CHECK (num_nulls(refused_revision, refusal, refused_at) IN (0, 3))
) WITH (fillfactor = 50);
COMMENT ON TABLE broker_receipts IS 'What each broker says: the last revision that it enforces, and its last refusal. One row per broker; repeated by its agent every 5 s, forgotten by age.';
COMMENT ON COLUMN broker_receipts.instance_id IS 'MQTT instance of the broker.';
COMMENT ON COLUMN broker_receipts.broker_id IS 'Name of the broker, unique in the instance.';
COMMENT ON COLUMN broker_receipts.revision IS 'Highest revision that it said to enforce; NULL before its first. Never falls: a late receipt changes received_at alone.';
COMMENT ON COLUMN broker_receipts.digest IS 'Digest of the bundle that it enforces at revision; agrees when it equals events.bundle_digest of that revision.';
COMMENT ON COLUMN broker_receipts.applied_at IS 'When revision was applied, by the clock of the broker; NULL where it did not say.';
COMMENT ON COLUMN broker_receipts.sessions_cut IS 'Sessions that revision cut.';
COMMENT ON COLUMN broker_receipts.refused_revision IS 'Revision of its last refusal, which stays after a later success; NULL where it never refused one.';
COMMENT ON COLUMN broker_receipts.refusal IS 'Why it refused, in its own words.';
COMMENT ON COLUMN broker_receipts.refused_at IS 'When the refusal was heard, by the clock of the server that heard it.';
COMMENT ON COLUMN broker_receipts.outcome IS 'What its last statement was: APPLIED or REFUSED.';
COMMENT ON COLUMN broker_receipts.enforcement IS 'Where it refuses devices: TLS, in the handshake, or CONNECT, in MQTT.';
COMMENT ON COLUMN broker_receipts.sessions_open IS 'Sessions open when it last spoke.';
COMMENT ON COLUMN broker_receipts.received_at IS 'When it was last heard, by the clock of the server that heard it.';
