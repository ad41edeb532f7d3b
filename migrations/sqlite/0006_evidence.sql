-- Schema version 6: the Merkle tree over the log.
--
-- Follows from `events` and can be built anew: emptied, the server fills it again. Built
-- behind the log, not in the transaction that appends, which must not become slower.

-- Roots of perfect subtrees of the Merkle tree over events.hash (RFC 9162 section 2.1), on
-- every eighth level: with them the root of the whole takes a few reads. Rows are never
-- changed.
CREATE TABLE tree_nodes (
    -- Height of the subtree: it has 2^level leaves. Level 8 has one row for every 256 events.
    level INTEGER NOT NULL CHECK (level > 0 AND level % 8 = 0),
    -- Number of the subtree on its level, from 0: it begins behind position
    -- node_index * 2^level.
    node_index INTEGER NOT NULL CHECK (node_index >= 0),
    -- Its root.
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, node_index)
) STRICT, WITHOUT ROWID;
