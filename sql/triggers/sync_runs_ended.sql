-- The end of a run rings: another one of its account may have been waiting for it.
CREATE OR REPLACE TRIGGER sync_runs_ended
    AFTER UPDATE OF status ON sync_runs
    FOR EACH ROW
    WHEN (OLD.status = 'Processing' AND NEW.status <> 'Processing')
    EXECUTE FUNCTION listener_ring();
