-- Tell sleeping listeners that a row became work, by the table's name, of a partition its root's.
-- Caller: row-level AFTER UPDATE trigger whose WHEN clause lets only such rows through. Writes nothing, waits for nothing.
-- The doorbell: a listener that sleeps holds the exclusive lock of its table, so only then does the shared one fail and
-- the writer pay for a notification, whose commits run one at a time. 1869374562 = the doorbells' half of the key.
-- By an assignment: see listener_ring_inserted().
CREATE OR REPLACE FUNCTION listener_ring() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    root oid := pg_catalog.pg_partition_root(TG_RELID);
    is_told boolean;
BEGIN
    IF root IS NULL THEN
        is_told := CASE WHEN NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, TG_RELID::integer)
                   THEN pg_catalog.pg_notify('listener_wake', TG_TABLE_NAME) IS NOT NULL END;
    ELSIF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, root::integer) THEN
        PERFORM pg_catalog.pg_notify('listener_wake', (SELECT relname::text FROM pg_catalog.pg_class WHERE oid = root));
    END IF;
    RETURN NULL;
END
$$;
