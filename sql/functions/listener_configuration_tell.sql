-- Tell every listener to read the configuration again.
-- Caller: statement-level AFTER trigger. The payload is constant, so Postgres collapses a transaction's into one.
CREATE OR REPLACE FUNCTION listener_configuration_tell() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('config_changed', '');
    RETURN NULL;
END
$$;
