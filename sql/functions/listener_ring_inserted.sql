-- Tell sleeping listeners that an INSERT (or COPY) brought work.
-- Caller: statement-level AFTER INSERT trigger with the transition table `inserted`; TG_ARGV[0] is the queue's ready word,
-- Pending when there is none. Writes nothing, waits for nothing.
-- Rings when a row is due within 3,600 s, the slowest safety poll: a listener then knows when to wake; what is due later,
-- a poll finds in time. The payload is the table's name, of a partition its root's, so Postgres collapses a transaction's
-- rings into one.
-- The doorbell is that of listener_ring().
CREATE OR REPLACE FUNCTION listener_ring_inserted() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    queue oid := coalesce(pg_catalog.pg_partition_root(TG_RELID)::oid, TG_RELID);
BEGIN
    IF EXISTS (
        SELECT FROM inserted
        WHERE status = coalesce(TG_ARGV[0], 'Pending') AND scheduled_at <= pg_catalog.now() + interval '3600 seconds'
    ) AND NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, queue::integer) THEN
        PERFORM pg_catalog.pg_notify('listener_wake', (SELECT relname::text FROM pg_catalog.pg_class WHERE oid = queue));
    END IF;
    RETURN NULL;
END
$$;
