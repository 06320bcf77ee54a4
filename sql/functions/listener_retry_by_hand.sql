-- `UPDATE … SET status = 'Pending'` is how a person retries: start counting attempts again, and run now.
-- Caller: row-level BEFORE UPDATE OF status whose WHEN clause keeps our own settles out. Takes no lock.
-- A row that is being worked on stays Processing and gets another revision, so that its settle puts it back: taking it
-- away from its handler would let two handlers send it at once, and the older content could arrive last (seen).
-- A row of an adopted table may have no priority and no time; it gets both, else no claim would find it.
CREATE OR REPLACE FUNCTION listener_retry_by_hand() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF OLD.status = 'Processing' AND OLD.claim_id IS NOT NULL THEN
        NEW.status := OLD.status;
        NEW.revision := greatest(NEW.revision, coalesce(OLD.revision, 0) + 1);
        RETURN NEW;
    END IF;
    IF NEW.attempts = OLD.attempts THEN
        NEW.attempts := 0;
    END IF;
    IF NEW.scheduled_at IS NOT DISTINCT FROM OLD.scheduled_at THEN
        NEW.scheduled_at := pg_catalog.now();
    END IF;
    NEW.priority := coalesce(NEW.priority, 100);
    NEW.finished_at := NULL;
    NEW.updated_at := pg_catalog.now();
    RETURN NEW;
END
$$;
