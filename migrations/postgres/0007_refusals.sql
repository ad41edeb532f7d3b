-- Schema version 7: calls that were refused.
--
-- Not part of the event log: nothing happened. A table of its own and bounded, so that
-- whoever is refused a million times fills neither the log nor the disk.

CREATE TABLE refusals (
    refusal_id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    first_at       timestamptz NOT NULL,
    last_at        timestamptz NOT NULL,
    attempts       bigint      NOT NULL CHECK (attempts > 0),
    principal      text        COLLATE "C" NOT NULL,
    account_id     text        COLLATE "C" NOT NULL,
    method         text        COLLATE "C" NOT NULL,
    code           text        COLLATE "C" NOT NULL,
    message        text        COLLATE "C" NOT NULL,
    instance_id    text        COLLATE "C" NOT NULL,
    source_address text        COLLATE "C" NOT NULL,
    request_id     text        COLLATE "C" NOT NULL
);
COMMENT ON TABLE refusals IS 'Refused calls, the newest of each caller and of all. Written behind the calls; some may be missing after a crash or a flood.';
COMMENT ON COLUMN refusals.refusal_id IS 'Grows with the row''s age in the table, about: the order of lists.';
COMMENT ON COLUMN refusals.first_at IS 'When the first of these attempts was refused, by the clock of the server that refused it.';
COMMENT ON COLUMN refusals.last_at IS 'When the last one was.';
COMMENT ON COLUMN refusals.attempts IS 'How many attempts the row stands for: alike in everything but request id and time, within a second, or a minute where the rate limit refused them.';
COMMENT ON COLUMN refusals.principal IS 'Principal that was refused; empty where nobody knew who it was.';
COMMENT ON COLUMN refusals.account_id IS 'Account of the principal; empty where nobody knew.';
COMMENT ON COLUMN refusals.method IS 'What was called: /package.Service/Method.';
COMMENT ON COLUMN refusals.code IS 'Code of the error table, for example PermissionCheckFailed.';
COMMENT ON COLUMN refusals.message IS 'What the first caller was told, shortened.';
COMMENT ON COLUMN refusals.instance_id IS 'Instance that the call named; empty where it was refused before that was known.';
COMMENT ON COLUMN refusals.source_address IS 'Network address that the call came from; empty where unknown.';
COMMENT ON COLUMN refusals.request_id IS 'Request id of the first attempt.';

CREATE INDEX refusals_by_principal ON refusals (principal, refusal_id);
COMMENT ON INDEX refusals_by_principal IS 'Finds the oldest refusals of a caller that has more than its share.';

-- Since this version.
COMMENT ON COLUMN replies.reply IS 'The reply, without what a CA certificate says about itself: that is in the event at its position. Older ones are whole.';
