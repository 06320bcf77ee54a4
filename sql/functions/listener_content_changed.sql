-- Content changes are work: bump the revision, and make a finished row work again.
-- Caller: row-level BEFORE UPDATE OF the content columns; TG_ARGV[0] is the queue's done word, TG_ARGV[1] its
-- ready word, Pending when there is none. Takes no lock.
-- A row that is Processing keeps its status: the settle sees another revision and puts it back then.
-- A ready row that waits for a retry is tried with its new content at once; one that is due keeps its place.
-- A row of an adopted table may have no revision, priority or time; it gets them, else no claim would find it.
CREATE OR REPLACE FUNCTION listener_content_changed() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    ready CONSTANT text := coalesce(TG_ARGV[1], 'Pending');
BEGIN
    NEW.revision := coalesce(OLD.revision, 0) + 1;
    NEW.updated_at := pg_catalog.now();
    IF NEW.status = OLD.status
       AND (OLD.status IN (TG_ARGV[0], 'Failed') OR (OLD.status = ready AND OLD.attempts > 0)) THEN
        NEW.status := ready;
        NEW.attempts := 0;
        NEW.finished_at := NULL;
        IF NEW.scheduled_at IS NOT DISTINCT FROM OLD.scheduled_at
           AND (OLD.status = ready AND OLD.scheduled_at <= pg_catalog.now()) IS NOT TRUE THEN
            NEW.scheduled_at := pg_catalog.now();
        END IF;
        NEW.priority := coalesce(NEW.priority, 100);
    END IF;
    RETURN NEW;
END
$$;
