-- Schema version 1: the event log, its read model, and the stored replies.
--
-- `events` is the record; every other table but `log_identity` and `replies`
-- follows from it and can be built anew with `catrust-server rebuild`.
-- Times are microseconds since 1970-01-01T00:00:00Z:
--     SELECT datetime(occurred_at / 1000000, 'unixepoch') FROM events;
-- UUIDs are text with hyphens, lower case. Hashes are 32 octets: hex(hash).

-- Identity of this log: exactly one row, never changed. A reader that meets another log_id is looking at another log.
CREATE TABLE log_identity (
    -- Drawn when the database was created; part of every message on the wire.
    log_id TEXT NOT NULL,
    -- Always 1; the primary key that keeps the table at one row.
    only_row INTEGER NOT NULL DEFAULT 1 PRIMARY KEY CHECK (only_row = 1)
) STRICT;
-- A random UUID, version 4: SQLite has no function for one.
INSERT INTO log_identity (log_id)
SELECT lower(
    substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-4' || substr(h, 14, 3) || '-'
    || substr('89AB', 1 + (abs(random()) % 4), 1) || substr(h, 18, 3) || '-' || substr(h, 21, 12)
)
FROM (SELECT hex(randomblob(16)) AS h);

-- The event log: append-only, one row per fact. Rows are never changed or removed; a trigger refuses it.
CREATE TABLE events (
    -- Global position: 1, 2, 3, ... in commit order without gaps. Head + 1 under the append lock, never a sequence.
    position INTEGER NOT NULL PRIMARY KEY CHECK (position > 0),
    -- Identity of the event.
    event_id TEXT NOT NULL UNIQUE,
    -- Aggregate: instance/<instance_id> or ca-certificate/<instance_id>/<SHA-256 of the DER>.
    stream_id TEXT NOT NULL,
    -- Number of the event in its stream, from 1 without gaps.
    stream_version INTEGER NOT NULL CHECK (stream_version > 0),
    -- MQTT instance that the event belongs to.
    instance_id TEXT NOT NULL,
    -- Instance revision that the event made, from 1 without gaps; NULL unless the event is a trust change.
    revision INTEGER CHECK (revision > 0),
    -- Digest of the trust bundle after the event; NULL unless the event is a trust change.
    bundle_digest BLOB CHECK (length(bundle_digest) = 32),
    -- Serial number of the CA certificate, canonical spelling; NULL unless the event is a trust change.
    sn TEXT,
    -- Name of the fact, in the past tense.
    event_type TEXT NOT NULL,
    -- Version of the shape of payload.
    schema_version INTEGER NOT NULL CHECK (schema_version > 0),
    -- The fact. JSON text, kept octet by octet, because the hash covers it.
    payload TEXT NOT NULL,
    -- Principal that asked for it.
    actor TEXT NOT NULL,
    -- Account of the principal.
    account_id TEXT NOT NULL,
    -- Version of the policies that allowed it.
    policy_version TEXT NOT NULL,
    -- Network address that the call came from; empty where unknown.
    source_address TEXT NOT NULL,
    -- Request that asked for it.
    request_id TEXT NOT NULL,
    -- W3C trace context of the call; empty where there was none.
    traceparent TEXT NOT NULL,
    -- When it was committed, by the clock of the server that did it. Never decreases with position.
    occurred_at INTEGER NOT NULL,
    -- SHA-256(hash of the row before || netstrings of all other columns in table order); the row before position 1 counts as 32 zero octets.
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    CONSTRAINT events_stream_version_key UNIQUE (stream_id, stream_version),
    CONSTRAINT events_trust_change_whole CHECK ((revision IS NULL) = (bundle_digest IS NULL) AND (revision IS NULL) = (sn IS NULL))
) STRICT;

-- One event per revision; finds trust changes and old trust bundles.
CREATE UNIQUE INDEX events_instance_revision_key ON events (instance_id, revision) WHERE revision IS NOT NULL;

-- The log is append-only. Against whoever drops the triggers there is the hash chain.
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'the event log is append-only: UPDATE refused');
END;

CREATE TRIGGER events_no_delete BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'the event log is append-only: DELETE refused');
END;

-- INSERT OR REPLACE deletes without firing the trigger above, so that a position
-- that is taken has to be refused before.
CREATE TRIGGER events_dense BEFORE INSERT ON events
WHEN NEW.position <> (SELECT coalesce(max(position), 0) + 1 FROM events)
BEGIN
    SELECT RAISE(ABORT, 'the event log is append-only: the next position is head + 1');
END;

-- Read model: MQTT instances as they are now. Written in the transaction of the events.
CREATE TABLE instances (
    -- Name of the MQTT instance; never reused.
    instance_id TEXT NOT NULL PRIMARY KEY,
    -- Region; never changes.
    region_id TEXT NOT NULL,
    -- Account that owns the instance.
    owner_account_id TEXT NOT NULL,
    -- Edition; only PLATINUM may change the states of CA certificates.
    edition TEXT NOT NULL CHECK (edition IN ('PLATINUM', 'PROFESSIONAL', 'STANDARD')),
    -- Number of trust changes so far.
    revision INTEGER NOT NULL CHECK (revision >= 0),
    -- Log position of the change that made revision; 0 before the first.
    trust_position INTEGER NOT NULL CHECK (trust_position >= 0),
    -- Digest of the trust bundle at revision: that of set_hash.
    bundle_digest BLOB NOT NULL CHECK (length(bundle_digest) = 32),
    -- State behind bundle_digest: LtHash16 over the bundle, 1,024 little-endian words of 16 bits.
    set_hash BLOB NOT NULL CHECK (length(set_hash) = 2048),
    -- CA certificates registered now.
    certificate_count INTEGER NOT NULL CHECK (certificate_count >= 0),
    -- Register codes that a registration may still use, oldest first, separated by one space; at most 64.
    unspent_register_codes TEXT NOT NULL,
    -- When it was registered.
    registered_at INTEGER NOT NULL,
    -- Log position of its registration: the order of lists.
    registered_position INTEGER NOT NULL UNIQUE,
    -- When owner or edition last changed.
    updated_at INTEGER NOT NULL,
    -- Log position of the last change of owner or edition.
    updated_position INTEGER NOT NULL,
    -- Number of events in its stream.
    stream_version INTEGER NOT NULL CHECK (stream_version > 0)
) STRICT;

-- Read model: CA certificates registered now. Deleted ones are in the log only.
CREATE TABLE ca_certificates (
    -- MQTT instance that it belongs to.
    instance_id TEXT NOT NULL,
    -- Serial number, upper-case hexadecimal in whole octets without leading zero octets: the alias inside the instance.
    sn TEXT NOT NULL,
    -- SHA-256 of the DER: the identity.
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    -- SHA-256 of the DER of the SubjectPublicKeyInfo: the identity of the key.
    spki_sha256 BLOB NOT NULL CHECK (length(spki_sha256) = 32),
    -- Subject, RFC 4514.
    subject TEXT NOT NULL,
    -- Subject key identifier, lower-case hexadecimal; empty where there is none.
    subject_key_id TEXT NOT NULL,
    -- Issuer, RFC 4514.
    issuer TEXT NOT NULL,
    -- Start of validity.
    not_before INTEGER NOT NULL,
    -- End of validity, inclusive.
    not_after INTEGER NOT NULL,
    -- The certificate, PEM.
    ca_content TEXT NOT NULL,
    -- Name given at registration.
    ca_name TEXT NOT NULL,
    -- Code that proved possession of the key.
    register_code TEXT NOT NULL,
    -- ACTIVE: brokers accept its devices; INACTIVE: they do not.
    state TEXT NOT NULL CHECK (state IN ('ACTIVE', 'INACTIVE')),
    -- How far an inactivation reaches: KEY or CERTIFICATE; NULL while ACTIVE.
    inactivation_scope TEXT CHECK (inactivation_scope IN ('KEY', 'CERTIFICATE')),
    -- When it was registered.
    registered_at INTEGER NOT NULL,
    -- Log position of its registration: the order of lists.
    registered_position INTEGER NOT NULL,
    -- When state last changed.
    state_changed_at INTEGER NOT NULL,
    -- Principal that last changed it.
    state_changed_by TEXT NOT NULL,
    -- Reason given then; may be empty.
    state_reason TEXT NOT NULL,
    -- Instance revision that the last change made.
    revision INTEGER NOT NULL CHECK (revision > 0),
    -- Log position of the last change.
    position INTEGER NOT NULL CHECK (position > 0),
    -- Number of events in its stream.
    stream_version INTEGER NOT NULL CHECK (stream_version > 0),
    PRIMARY KEY (instance_id, sn),
    CONSTRAINT ca_certificates_registered_key UNIQUE (instance_id, registered_position),
    CONSTRAINT ca_certificates_scope_of_inactive CHECK ((state = 'INACTIVE') = (inactivation_scope IS NOT NULL))
) STRICT;

-- Finds the twins of a CA certificate: those with the same key.
CREATE INDEX ca_certificates_by_key ON ca_certificates (instance_id, spki_sha256);

-- Read model: register codes that a registration has used.
CREATE TABLE spent_register_codes (
    -- MQTT instance that the code was given to.
    instance_id TEXT NOT NULL,
    -- The code.
    register_code TEXT NOT NULL,
    -- Log position of the registration that used it.
    position INTEGER NOT NULL CHECK (position > 0),
    PRIMARY KEY (instance_id, register_code)
) STRICT;

-- Replies kept for repeats of a request. Written in the transaction of the events; pruned by age.
CREATE TABLE replies (
    -- Account of the caller: request ids are unique within it.
    account_id TEXT NOT NULL,
    -- Request id that the caller chose.
    request_id TEXT NOT NULL,
    -- SHA-256 of the canonical request: the same id with another request is refused.
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    -- The reply, as given.
    reply TEXT NOT NULL,
    -- When it was given.
    created_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT;
