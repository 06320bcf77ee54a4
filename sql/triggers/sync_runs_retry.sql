-- Our own settles take the claim_id away; whoever leaves it is a person, also on a row that was being worked on.
CREATE OR REPLACE TRIGGER sync_runs_retry
    BEFORE UPDATE OF status ON sync_runs
    FOR EACH ROW
    WHEN (NEW.status = 'Pending' AND OLD.status IS DISTINCT FROM 'Pending'
          AND (OLD.claim_id IS NULL OR NEW.claim_id IS NOT NULL))
    EXECUTE FUNCTION listener_retry_by_hand();
