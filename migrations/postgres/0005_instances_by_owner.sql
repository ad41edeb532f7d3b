-- Schema version 5: the instances of an account.
--
-- The audit trail of an account is that of the instances that it owns. Events have no
-- further index for it: every index would cost each append, under the append lock.

CREATE INDEX instances_by_owner ON instances (owner_account_id);
COMMENT ON INDEX instances_by_owner IS 'Finds the instances of an account.';
