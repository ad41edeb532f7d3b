-- Schema version 3: what brokers say about the revisions.
--
-- Not part of the event log: nothing here is a fact of ours, `verify` and `rebuild` do
-- not look at it, and losing it costs 5 s, until every agent has said it again.

-- What each broker says: the last revision that it enforces, and its last refusal. One
-- row per broker; repeated by its agent every 5 s, forgotten by age.
CREATE TABLE broker_receipts (
    -- MQTT instance of the broker.
    instance_id TEXT NOT NULL,
    -- Name of the broker, unique in the instance.
    broker_id TEXT NOT NULL,
    -- Highest revision that it said to enforce; NULL before its first. Never falls: a
    -- late receipt changes received_at alone.
    revision INTEGER CHECK (revision >= 0),
    -- Digest of the bundle that it enforces at revision; agrees when it equals
    -- events.bundle_digest of that revision.
    digest BLOB CHECK (length(digest) = 32),
    -- When revision was applied, by the clock of the broker; NULL where it did not say.
    applied_at INTEGER,
    -- Sessions that revision cut.
    sessions_cut INTEGER CHECK (sessions_cut >= 0),
    -- Revision of its last refusal, which stays after a later success; NULL where it
    -- never refused one.
    refused_revision INTEGER CHECK (refused_revision >= 0),
    -- Why it refused, in its own words.
    refusal TEXT,
    -- When the refusal was heard, by the clock of the server that heard it.
    refused_at INTEGER,
    -- What its last statement was: APPLIED or REFUSED.
    outcome TEXT NOT NULL CHECK (outcome IN ('APPLIED', 'REFUSED')),
    -- Where it refuses devices: TLS, in the handshake, or CONNECT, in MQTT.
    enforcement TEXT NOT NULL CHECK (enforcement IN ('TLS', 'CONNECT')),
    -- Sessions open when it last spoke.
    sessions_open INTEGER NOT NULL CHECK (sessions_open >= 0),
    -- When it was last heard, by the clock of the server that heard it.
    received_at INTEGER NOT NULL,
    PRIMARY KEY (instance_id, broker_id),
    CONSTRAINT broker_receipts_applied_whole
        CHECK ((revision IS NULL) = (digest IS NULL) AND (revision IS NULL) = (sessions_cut IS NULL)),
    CONSTRAINT broker_receipts_refused_whole
        CHECK ((refused_revision IS NULL) = (refusal IS NULL) AND (refused_revision IS NULL) = (refused_at IS NULL))
) STRICT;
