-- Schema version 5: the instances of an account. (4 was for Postgres alone.)
--
-- The audit trail of an account is that of the instances that it owns. Events have no
-- further index for it: every index would cost each append.

-- Finds the instances of an account.
CREATE INDEX instances_by_owner ON instances (owner_account_id);
