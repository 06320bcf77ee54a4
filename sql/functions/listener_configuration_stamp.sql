-- updated_at and updated_by of a configuration row.
-- Caller: row-level BEFORE INSERT OR UPDATE trigger. An adopted table may have a column of that name for something else,
-- or too short for us; the history tells who it was all the same.
CREATE OR REPLACE FUNCTION listener_configuration_stamp() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    NEW.updated_by := listener_who();
    RETURN NEW;
EXCEPTION WHEN data_exception OR datatype_mismatch THEN
    RETURN NEW;
END
$$;
