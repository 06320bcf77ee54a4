-- The file is to be imported again, as if it never was.
-- Caller: row-level trigger import_files_forget. Takes no lock.
CREATE OR REPLACE FUNCTION listener_import_forget() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.merged_at := NULL;
    RETURN NEW;
END
$$;
