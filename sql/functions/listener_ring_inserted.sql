-- Tell sleeping listeners that an INSERT (or COPY) brought work.
-- Caller: statement-level AFTER INSERT trigger with the transition table `inserted`; TG_ARGV[0] is the queue's ready word,
-- Pending when there is none. Writes nothing, waits for nothing.
-- Rings when a row is due within 3,600 s, the slowest safety poll: a listener then knows when to wake; what is due later,
-- a poll finds in time. The payload is the table's name, of a partition its root's, so Postgres collapses a transaction's
-- rings into one.
-- The doorbell is that of listener_ring(). Each INSERT pays for what is done here: an assignment is evaluated at once, where
-- PERFORM and a subquery run a query of their own (measured, of a commit while the bell is on: 10 µs less).
CREATE OR REPLACE FUNCTION listener_ring_inserted() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    root oid := pg_catalog.pg_partition_root(TG_RELID);
    is_told boolean;
BEGIN
    IF NOT EXISTS (
        SELECT FROM inserted
        WHERE status = coalesce(TG_ARGV[0], 'Pending') AND scheduled_at <= pg_catalog.now() + interval '3600 seconds'
    ) THEN
        RETURN NULL;
    END IF;
    IF root IS NULL THEN
        is_told := CASE WHEN NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, TG_RELID::integer)
                   THEN pg_catalog.pg_notify('listener_wake', TG_TABLE_NAME) IS NOT NULL END;
    ELSIF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, root::integer) THEN
        PERFORM pg_catalog.pg_notify('listener_wake', (SELECT relname::text FROM pg_catalog.pg_class WHERE oid = root));
    END IF;
    RETURN NULL;
END
$$;
