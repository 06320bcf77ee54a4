-- Tell sleeping listeners that a row became work.
-- Caller: row-level AFTER UPDATE trigger whose WHEN clause lets only such rows through. Takes no lock, writes nothing.
CREATE OR REPLACE FUNCTION listener_ring() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('listener_wake', TG_TABLE_NAME);
    RETURN NULL;
END
$$;
