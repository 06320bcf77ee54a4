-- Tell sleeping listeners that a row became work, by the table's name, of a partition its root's.
-- Caller: row-level AFTER UPDATE trigger whose WHEN clause lets only such rows through. Writes nothing, waits for nothing.
-- The doorbell: a listener that sleeps holds the exclusive lock of its table, so only then does the shared one fail and
-- the writer pay for a notification, whose commits run one at a time. 1869374562 = the doorbells' half of the key.
CREATE OR REPLACE FUNCTION listener_ring() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    queue oid := coalesce(pg_catalog.pg_partition_root(TG_RELID)::oid, TG_RELID);
BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, queue::integer) THEN
        PERFORM pg_catalog.pg_notify('listener_wake', (SELECT relname::text FROM pg_catalog.pg_class WHERE oid = queue));
    END IF;
    RETURN NULL;
END
$$;
