-- Tell sleeping listeners that a row became work, by the table's name, of a partition its root's.
-- Caller: row-level AFTER UPDATE trigger whose WHEN clause lets only such rows through. Writes nothing, waits for nothing.
-- The doorbell: a listener that sleeps holds the exclusive lock of its table, so only then does the shared one fail and
-- the writer pay for a notification, whose commits run one at a time. 1869374562 = the doorbells' half of the key.
-- An assignment is evaluated at once, where PERFORM runs a query of its own.
CREATE OR REPLACE FUNCTION listener_ring() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    root oid := pg_catalog.pg_partition_root(TG_RELID);
    is_told boolean;
BEGIN
    is_told := CASE WHEN NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, coalesce(root, TG_RELID)::integer) THEN
        pg_catalog.pg_notify('listener_wake', CASE WHEN root IS NULL THEN TG_TABLE_NAME::text  -- 1259 = pg_class
            ELSE ((pg_catalog.pg_identify_object_as_address(1259, root, 0)).object_names)[2] END) IS NOT NULL END;
    RETURN NULL;
END
$$;
