-- Schema version 8: shapes in which a batch is sent.
--
-- A batch comes as one array per table. An array per column would be unnested into a
-- buffer per column: forty of them cost more than the rows of a small batch.
--
-- The attributes are the columns of the same names. A shape is a promise to the program
-- that sends it: where the columns change, the next one gets another name.

CREATE TYPE new_event AS (
    position       bigint,
    event_id       uuid,
    stream_id      text,
    stream_version bigint,
    instance_id    text,
    revision       bigint,
    bundle_digest  bytea,
    sn             text,
    event_type     text,
    schema_version smallint,
    payload        json,
    actor          text,
    account_id     text,
    policy_version text,
    source_address text,
    request_id     uuid,
    traceparent    text,
    occurred_at    timestamptz,
    hash           bytea
);
COMMENT ON TYPE new_event IS 'A row to insert into events.';

CREATE TYPE instance_change AS (
    owner_account_id       text,
    edition                text,
    revision               bigint,
    trust_position         bigint,
    bundle_digest          bytea,
    set_hash               bytea,
    certificate_count      bigint,
    unspent_register_codes text,
    updated_at             timestamptz,
    updated_position       bigint,
    stream_version         bigint,
    instance_id            text
);
COMMENT ON TYPE instance_change IS 'What changes in a row of instances, and which row.';

CREATE TYPE ca_certificate_change AS (
    state              text,
    inactivation_scope text,
    state_changed_at   timestamptz,
    state_changed_by   text,
    state_reason       text,
    revision           bigint,
    position           bigint,
    stream_version     bigint,
    instance_id        text,
    sn                 text
);
COMMENT ON TYPE ca_certificate_change IS 'What changes in a row of ca_certificates, and which row.';

CREATE TYPE new_reply AS (
    account_id  text,
    request_id  uuid,
    fingerprint bytea,
    reply       json,
    created_at  timestamptz
);
COMMENT ON TYPE new_reply IS 'A row to insert into replies.';
