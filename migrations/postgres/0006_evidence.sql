-- Schema version 6: the Merkle tree over the log.
--
-- Follows from `events` and can be built anew: emptied, the servers fill it again. Built
-- behind the log, not in the transaction that appends, which must not become slower.

CREATE TABLE tree_nodes (
    level      smallint NOT NULL CHECK (level > 0 AND level % 8 = 0),
    node_index bigint   NOT NULL CHECK (node_index >= 0),
    hash       bytea    NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, node_index)
);
COMMENT ON TABLE tree_nodes IS 'Roots of perfect subtrees of the Merkle tree over events.hash (RFC 9162 section 2.1), on every eighth level: with them the root of the whole takes a few reads. Rows are never changed.';
COMMENT ON COLUMN tree_nodes.level IS 'Height of the subtree: it has 2^level leaves. Level 8 has one row for every 256 events.';
COMMENT ON COLUMN tree_nodes.node_index IS 'Number of the subtree on its level, from 0: it begins behind position node_index * 2^level.';
COMMENT ON COLUMN tree_nodes.hash IS 'Its root.';
