-- A person's retry, an edit or a scheduled_at moved forward. Our own claims and settles end elsewhere than in Pending or
-- take the claim_id away, so they never enter PL/pgSQL. Due later than the slowest safety poll rings nothing, like INSERT.
CREATE OR REPLACE TRIGGER sync_runs_became_due
    AFTER UPDATE ON sync_runs
    FOR EACH ROW
    WHEN (NEW.status = 'Pending' AND (OLD.claim_id IS NULL OR NEW.claim_id IS NOT NULL)
          AND (OLD.status IS DISTINCT FROM 'Pending' OR NEW.scheduled_at < OLD.scheduled_at)
          AND NEW.scheduled_at <= now() + interval '3600 seconds')
    EXECUTE FUNCTION listener_ring();
