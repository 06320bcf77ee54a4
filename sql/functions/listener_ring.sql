-- Tell sleeping listeners that a row became work, by the table's name, of a partition its root's.
-- Caller: row-level AFTER UPDATE trigger whose WHEN clause lets only such rows through. Takes no lock, writes nothing.
CREATE OR REPLACE FUNCTION listener_ring() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('listener_wake', coalesce(
        (SELECT relname FROM pg_catalog.pg_class WHERE oid = pg_catalog.pg_partition_root(TG_RELID)), TG_TABLE_NAME));
    RETURN NULL;
END
$$;
