-- Schema version 7: calls that were refused.
--
-- Not part of the event log: nothing happened. A table of its own and bounded, so that
-- whoever is refused a million times fills neither the log nor the disk.
--
-- Since this version, too, replies.reply is without what a CA certificate says about itself:
-- that is in the event at its position. Older ones are whole.

-- Refused calls, the newest of each caller and of all. Written behind the calls; some may
-- be missing after a crash or a flood.
CREATE TABLE refusals (
    -- Grows with the row's age in the table: the order of lists.
    refusal_id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- When the first of these attempts was refused, by the clock of the server.
    first_at INTEGER NOT NULL,
    -- When the last one was.
    last_at INTEGER NOT NULL,
    -- How many attempts the row stands for: alike in everything but request id and time,
    -- within a second, or a minute where the rate limit refused them.
    attempts INTEGER NOT NULL CHECK (attempts > 0),
    -- Principal that was refused; empty where nobody knew who it was.
    principal TEXT NOT NULL,
    -- Account of the principal; empty where nobody knew.
    account_id TEXT NOT NULL,
    -- What was called: /package.Service/Method.
    method TEXT NOT NULL,
    -- Code of the error table, for example PermissionCheckFailed.
    code TEXT NOT NULL,
    -- What the first caller was told, shortened.
    message TEXT NOT NULL,
    -- Instance that the call named; empty where it was refused before that was known.
    instance_id TEXT NOT NULL,
    -- Network address that the call came from; empty where unknown.
    source_address TEXT NOT NULL,
    -- Request id of the first attempt.
    request_id TEXT NOT NULL
) STRICT;

-- Finds the oldest refusals of a caller that has more than its share.
CREATE INDEX refusals_by_principal ON refusals (principal, refusal_id);
