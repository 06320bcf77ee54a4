CREATE OR REPLACE TRIGGER sync_runs_waiting
    BEFORE INSERT OR UPDATE OF status ON sync_runs
    FOR EACH ROW
    WHEN (NEW.status = 'Pending')
    EXECUTE FUNCTION listener_one_waiting_run();
