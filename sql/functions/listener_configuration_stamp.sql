-- updated_at and updated_by of a configuration row.
-- Caller: row-level BEFORE INSERT OR UPDATE trigger.
CREATE OR REPLACE FUNCTION listener_configuration_stamp() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    NEW.updated_by := listener_who();
    RETURN NEW;
END
$$;
