-- `UPDATE … SET status = 'Pending'` is how a person retries: start counting attempts again, and run now.
-- Caller: row-level BEFORE UPDATE OF status whose WHEN clause lets only rows without a claim through. Takes no lock.
CREATE OR REPLACE FUNCTION listener_retry_by_hand() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.attempts = OLD.attempts THEN
        NEW.attempts := 0;
    END IF;
    IF NEW.scheduled_at = OLD.scheduled_at THEN
        NEW.scheduled_at := pg_catalog.now();
    END IF;
    NEW.finished_at := NULL;
    NEW.updated_at := pg_catalog.now();
    RETURN NEW;
END
$$;
