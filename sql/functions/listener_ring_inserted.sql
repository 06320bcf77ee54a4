-- Tell sleeping listeners that an INSERT (or COPY) brought work.
-- Caller: statement-level AFTER INSERT trigger with the transition table `inserted`; TG_ARGV[0] is the queue's ready word
-- when it is another than Pending. Writes nothing, waits for nothing.
-- Rings when a row is due within 3,600 s, the slowest safety poll: a listener then knows when to wake; what is due later,
-- a poll finds in time. The payload is the table's name, of a partition its root's, so Postgres collapses a transaction's
-- rings into one.
-- The doorbell is that of listener_ring(). While nobody sleeps the lock is all that a writer pays for: the trigger's WHEN
-- clause takes it, and where there is none (partitions) the first lines here. The look at the rows, a query, costs more than
-- all the rest (of a one-row commit, beside an empty trigger: 20 µs with the look first, 6 without, 1 to 3 by the clause).
-- With a ready word of the table's own most rows may be no work: those look first, or their writers would keep a
-- listener from falling asleep. Without one, whoever has inserted anything keeps it awake until he commits.
CREATE OR REPLACE FUNCTION listener_ring_inserted() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_NARGS = 0 AND pg_catalog.pg_try_advisory_xact_lock_shared(
        1869374562, coalesce(pg_catalog.pg_partition_root(TG_RELID), TG_RELID)::integer
    ) THEN
        RETURN NULL;
    END IF;
    PERFORM CASE WHEN NOT pg_catalog.pg_try_advisory_xact_lock_shared(
        1869374562, coalesce(pg_catalog.pg_partition_root(TG_RELID), TG_RELID)::integer
    ) THEN
        pg_catalog.pg_notify('listener_wake', CASE WHEN pg_catalog.pg_partition_root(TG_RELID) IS NULL THEN TG_TABLE_NAME::text  -- 1259 = pg_class
            ELSE ((pg_catalog.pg_identify_object_as_address(1259, pg_catalog.pg_partition_root(TG_RELID), 0)).object_names)[2] END) END
    FROM inserted
    WHERE status = coalesce(TG_ARGV[0], 'Pending') AND scheduled_at <= pg_catalog.now() + interval '3600 seconds'
    LIMIT 1;
    RETURN NULL;
END
$$;
