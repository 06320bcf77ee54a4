-- Tell sleeping listeners that an INSERT (or COPY) brought work.
-- Caller: statement-level AFTER INSERT trigger with the transition table `inserted`; TG_ARGV[0] is the queue's ready word,
-- Pending when there is none. Takes no lock, writes nothing.
-- Rings when a row is due within 300 s, the slowest safety poll: a listener then knows when to wake; what is due later,
-- a poll finds in time. The payload is the table's name, of a partition its root's, so Postgres collapses a transaction's
-- rings into one.
CREATE OR REPLACE FUNCTION listener_ring_inserted() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM inserted
        WHERE status = coalesce(TG_ARGV[0], 'Pending') AND scheduled_at <= pg_catalog.now() + interval '300 seconds'
    ) THEN
        PERFORM pg_catalog.pg_notify('listener_wake', coalesce(
            (SELECT relname FROM pg_catalog.pg_class WHERE oid = pg_catalog.pg_partition_root(TG_RELID)), TG_TABLE_NAME));
    END IF;
    RETURN NULL;
END
$$;
