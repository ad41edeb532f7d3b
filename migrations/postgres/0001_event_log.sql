-- Schema version 1: the event log, its read model, and the stored replies.
--
-- `events` is the record; every other table but `log_identity` and `replies`
-- follows from it and can be built anew with `catrust-server rebuild`.
-- Names are compared octet by octet (COLLATE "C"), as the programs compare them.

CREATE TABLE log_identity (
    log_id   uuid    NOT NULL,
    only_row boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (only_row)
);
COMMENT ON TABLE log_identity IS 'Identity of this log: exactly one row, never changed. A reader that meets another log_id is looking at another log.';
COMMENT ON COLUMN log_identity.log_id IS 'Drawn when the database was created; part of every message on the wire.';
COMMENT ON COLUMN log_identity.only_row IS 'Always true; the primary key that keeps the table at one row.';
INSERT INTO log_identity (log_id) VALUES (gen_random_uuid());

CREATE TABLE events (
    position       bigint      NOT NULL PRIMARY KEY CHECK (position > 0),
    event_id       uuid        NOT NULL UNIQUE,
    stream_id      text        COLLATE "C" NOT NULL,
    stream_version bigint      NOT NULL CHECK (stream_version > 0),
    instance_id    text        COLLATE "C" NOT NULL,
    revision       bigint      CHECK (revision > 0),
    bundle_digest  bytea       CHECK (octet_length(bundle_digest) = 32),
    sn             text        COLLATE "C",
    event_type     text        COLLATE "C" NOT NULL,
    schema_version smallint    NOT NULL CHECK (schema_version > 0),
    payload        json        NOT NULL,
    actor          text        COLLATE "C" NOT NULL,
    account_id     text        COLLATE "C" NOT NULL,
    policy_version text        COLLATE "C" NOT NULL,
    source_address text        COLLATE "C" NOT NULL,
    request_id     uuid        NOT NULL,
    traceparent    text        COLLATE "C" NOT NULL,
    occurred_at    timestamptz NOT NULL,
    hash           bytea       NOT NULL CHECK (octet_length(hash) = 32),
    CONSTRAINT events_stream_version_key UNIQUE (stream_id, stream_version),
    CONSTRAINT events_trust_change_whole
        CHECK ((revision IS NULL) = (bundle_digest IS NULL) AND (revision IS NULL) = (sn IS NULL))
);
COMMENT ON TABLE events IS 'The event log: append-only, one row per fact. Rows are never changed or removed; a trigger refuses it.';
COMMENT ON COLUMN events.position IS 'Global position: 1, 2, 3, ... in commit order without gaps. Head + 1 under the append lock, never a sequence.';
COMMENT ON COLUMN events.event_id IS 'Identity of the event.';
COMMENT ON COLUMN events.stream_id IS 'Aggregate: instance/<instance_id> or ca-certificate/<instance_id>/<SHA-256 of the DER>.';
COMMENT ON COLUMN events.stream_version IS 'Number of the event in its stream, from 1 without gaps.';
COMMENT ON COLUMN events.instance_id IS 'MQTT instance that the event belongs to.';
COMMENT ON COLUMN events.revision IS 'Instance revision that the event made, from 1 without gaps; NULL unless the event is a trust change.';
COMMENT ON COLUMN events.bundle_digest IS 'Digest of the trust bundle after the event; NULL unless the event is a trust change.';
COMMENT ON COLUMN events.sn IS 'Serial number of the CA certificate, canonical spelling; NULL unless the event is a trust change.';
COMMENT ON COLUMN events.event_type IS 'Name of the fact, in the past tense.';
COMMENT ON COLUMN events.schema_version IS 'Version of the shape of payload.';
COMMENT ON COLUMN events.payload IS 'The fact. Type json, not jsonb: the text is kept octet by octet, because the hash covers it.';
COMMENT ON COLUMN events.actor IS 'Principal that asked for it.';
COMMENT ON COLUMN events.account_id IS 'Account of the principal.';
COMMENT ON COLUMN events.policy_version IS 'Version of the policies that allowed it.';
COMMENT ON COLUMN events.source_address IS 'Network address that the call came from; empty where unknown.';
COMMENT ON COLUMN events.request_id IS 'Request that asked for it.';
COMMENT ON COLUMN events.traceparent IS 'W3C trace context of the call; empty where there was none.';
COMMENT ON COLUMN events.occurred_at IS 'When it was committed, by the clock of the server that did it. Never decreases with position.';
COMMENT ON COLUMN events.hash IS 'SHA-256(hash of the row before || netstrings of all other columns in table order); the row before position 1 counts as 32 zero octets.';

CREATE UNIQUE INDEX events_instance_revision_key ON events (instance_id, revision) WHERE revision IS NOT NULL;
COMMENT ON INDEX events_instance_revision_key IS 'One event per revision; finds trust changes and old trust bundles.';

-- Certificates in PEM hardly compress, and each would pay for the attempt under
-- the append lock: rows stay whole and in line up to one page.
ALTER TABLE events ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE events SET (toast_tuple_target = 8160);

CREATE FUNCTION refuse_event_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % refused', TG_OP USING ERRCODE = 'restrict_violation';
END
$$;
COMMENT ON FUNCTION refuse_event_change() IS 'Refuses whatever statement fires it.';

CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_event_change();
COMMENT ON TRIGGER events_append_only ON events IS 'Holds for the owner too. Against a superuser there is the hash chain.';

CREATE TABLE instances (
    instance_id            text        COLLATE "C" NOT NULL PRIMARY KEY,
    region_id              text        COLLATE "C" NOT NULL,
    owner_account_id       text        COLLATE "C" NOT NULL,
    edition                text        COLLATE "C" NOT NULL
                           CHECK (edition IN ('PLATINUM', 'PROFESSIONAL', 'STANDARD')),
    revision               bigint      NOT NULL CHECK (revision >= 0),
    trust_position         bigint      NOT NULL CHECK (trust_position >= 0),
    bundle_digest          bytea       NOT NULL CHECK (octet_length(bundle_digest) = 32),
    set_hash               bytea       NOT NULL CHECK (octet_length(set_hash) = 2048),
    certificate_count      bigint      NOT NULL CHECK (certificate_count >= 0),
    unspent_register_codes text        COLLATE "C" NOT NULL,
    registered_at          timestamptz NOT NULL,
    registered_position    bigint      NOT NULL UNIQUE,
    updated_at             timestamptz NOT NULL,
    updated_position       bigint      NOT NULL,
    stream_version         bigint      NOT NULL CHECK (stream_version > 0)
) WITH (fillfactor = 50, toast_tuple_target = 8160);
COMMENT ON TABLE instances IS 'Read model: MQTT instances as they are now. Written in the transaction of the events.';
COMMENT ON COLUMN instances.instance_id IS 'Name of the MQTT instance; never reused.';
COMMENT ON COLUMN instances.region_id IS 'Region; never changes.';
COMMENT ON COLUMN instances.owner_account_id IS 'Account that owns the instance.';
COMMENT ON COLUMN instances.edition IS 'Edition; only PLATINUM may change the states of CA certificates.';
COMMENT ON COLUMN instances.revision IS 'Number of trust changes so far.';
COMMENT ON COLUMN instances.trust_position IS 'Log position of the change that made revision; 0 before the first.';
COMMENT ON COLUMN instances.bundle_digest IS 'Digest of the trust bundle at revision: that of set_hash.';
COMMENT ON COLUMN instances.set_hash IS 'State behind bundle_digest: LtHash16 over the bundle, 1,024 little-endian words of 16 bits.';
COMMENT ON COLUMN instances.certificate_count IS 'CA certificates registered now.';
COMMENT ON COLUMN instances.unspent_register_codes IS 'Register codes that a registration may still use, oldest first, separated by one space; at most 64.';
COMMENT ON COLUMN instances.registered_at IS 'When it was registered.';
COMMENT ON COLUMN instances.registered_position IS 'Log position of its registration: the order of lists.';
COMMENT ON COLUMN instances.updated_at IS 'When owner or edition last changed.';
COMMENT ON COLUMN instances.updated_position IS 'Log position of the last change of owner or edition.';
COMMENT ON COLUMN instances.stream_version IS 'Number of events in its stream.';

-- Each trust change rewrites the set hash, which does not compress: in line it
-- costs one row version, out of line two more rows that vacuum has to clean.
ALTER TABLE instances ALTER COLUMN set_hash SET STORAGE PLAIN;

CREATE TABLE ca_certificates (
    instance_id         text        COLLATE "C" NOT NULL,
    sn                  text        COLLATE "C" NOT NULL,
    sha256              bytea       NOT NULL CHECK (octet_length(sha256) = 32),
    spki_sha256         bytea       NOT NULL CHECK (octet_length(spki_sha256) = 32),
    subject             text        COLLATE "C" NOT NULL,
    subject_key_id      text        COLLATE "C" NOT NULL,
    issuer              text        COLLATE "C" NOT NULL,
    not_before          timestamptz NOT NULL,
    not_after           timestamptz NOT NULL,
    ca_content          text        COLLATE "C" NOT NULL,
    ca_name             text        COLLATE "C" NOT NULL,
    register_code       text        COLLATE "C" NOT NULL,
    state               text        COLLATE "C" NOT NULL CHECK (state IN ('ACTIVE', 'INACTIVE')),
    inactivation_scope  text        COLLATE "C" CHECK (inactivation_scope IN ('KEY', 'CERTIFICATE')),
    registered_at       timestamptz NOT NULL,
    registered_position bigint      NOT NULL,
    state_changed_at    timestamptz NOT NULL,
    state_changed_by    text        COLLATE "C" NOT NULL,
    state_reason        text        COLLATE "C" NOT NULL,
    revision            bigint      NOT NULL CHECK (revision > 0),
    position            bigint      NOT NULL CHECK (position > 0),
    stream_version      bigint      NOT NULL CHECK (stream_version > 0),
    PRIMARY KEY (instance_id, sn),
    CONSTRAINT ca_certificates_registered_key UNIQUE (instance_id, registered_position),
    CONSTRAINT ca_certificates_scope_of_inactive CHECK ((state = 'INACTIVE') = (inactivation_scope IS NOT NULL))
) WITH (fillfactor = 70, toast_tuple_target = 8160);
COMMENT ON TABLE ca_certificates IS 'Read model: CA certificates registered now. Deleted ones are in the log only.';
COMMENT ON COLUMN ca_certificates.instance_id IS 'MQTT instance that it belongs to.';
COMMENT ON COLUMN ca_certificates.sn IS 'Serial number, upper-case hexadecimal in whole octets without leading zero octets: the alias inside the instance.';
COMMENT ON COLUMN ca_certificates.sha256 IS 'SHA-256 of the DER: the identity.';
COMMENT ON COLUMN ca_certificates.spki_sha256 IS 'SHA-256 of the DER of the SubjectPublicKeyInfo: the identity of the key.';
COMMENT ON COLUMN ca_certificates.subject IS 'Subject, RFC 4514.';
COMMENT ON COLUMN ca_certificates.subject_key_id IS 'Subject key identifier, lower-case hexadecimal; empty where there is none.';
COMMENT ON COLUMN ca_certificates.issuer IS 'Issuer, RFC 4514.';
COMMENT ON COLUMN ca_certificates.not_before IS 'Start of validity.';
COMMENT ON COLUMN ca_certificates.not_after IS 'End of validity, inclusive.';
COMMENT ON COLUMN ca_certificates.ca_content IS 'The certificate, PEM.';
COMMENT ON COLUMN ca_certificates.ca_name IS 'Name given at registration.';
COMMENT ON COLUMN ca_certificates.register_code IS 'Code that proved possession of the key.';
COMMENT ON COLUMN ca_certificates.state IS 'ACTIVE: brokers accept its devices; INACTIVE: they do not.';
COMMENT ON COLUMN ca_certificates.inactivation_scope IS 'How far an inactivation reaches: KEY or CERTIFICATE; NULL while ACTIVE.';
COMMENT ON COLUMN ca_certificates.registered_at IS 'When it was registered.';
COMMENT ON COLUMN ca_certificates.registered_position IS 'Log position of its registration: the order of lists.';
COMMENT ON COLUMN ca_certificates.state_changed_at IS 'When state last changed.';
COMMENT ON COLUMN ca_certificates.state_changed_by IS 'Principal that last changed it.';
COMMENT ON COLUMN ca_certificates.state_reason IS 'Reason given then; may be empty.';
COMMENT ON COLUMN ca_certificates.revision IS 'Instance revision that the last change made.';
COMMENT ON COLUMN ca_certificates.position IS 'Log position of the last change.';
COMMENT ON COLUMN ca_certificates.stream_version IS 'Number of events in its stream.';
ALTER TABLE ca_certificates ALTER COLUMN ca_content SET STORAGE EXTERNAL;

CREATE INDEX ca_certificates_by_key ON ca_certificates (instance_id, spki_sha256);
COMMENT ON INDEX ca_certificates_by_key IS 'Finds the twins of a CA certificate: those with the same key.';

CREATE TABLE spent_register_codes (
    instance_id   text   COLLATE "C" NOT NULL,
    register_code text   COLLATE "C" NOT NULL,
    position      bigint NOT NULL CHECK (position > 0),
    PRIMARY KEY (instance_id, register_code)
);
COMMENT ON TABLE spent_register_codes IS 'Read model: register codes that a registration has used.';
COMMENT ON COLUMN spent_register_codes.instance_id IS 'MQTT instance that the code was given to.';
COMMENT ON COLUMN spent_register_codes.register_code IS 'The code.';
COMMENT ON COLUMN spent_register_codes.position IS 'Log position of the registration that used it.';

CREATE TABLE replies (
    account_id  text        COLLATE "C" NOT NULL,
    request_id  uuid        NOT NULL,
    fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    reply       json        NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, request_id)
) WITH (toast_tuple_target = 8160);
COMMENT ON TABLE replies IS 'Replies kept for repeats of a request. Written in the transaction of the events; pruned by age.';
COMMENT ON COLUMN replies.account_id IS 'Account of the caller: request ids are unique within it.';
COMMENT ON COLUMN replies.request_id IS 'Request id that the caller chose.';
COMMENT ON COLUMN replies.fingerprint IS 'SHA-256 of the canonical request: the same id with another request is refused.';
COMMENT ON COLUMN replies.reply IS 'The reply, as given.';
COMMENT ON COLUMN replies.created_at IS 'When it was given.';
ALTER TABLE replies ALTER COLUMN reply SET STORAGE EXTERNAL;
