-- Transactions that change the configuration take turns, from their first statement to their commit: two spellings of a
-- key are two rows, which two writers would otherwise lock in opposite order; and the history is in the order of commit.
CREATE OR REPLACE FUNCTION listener_configuration_lock(configuration regclass) RETURNS void
LANGUAGE sql
AS $$
    SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('order-listener configuration', configuration::oid::bigint));
$$;
