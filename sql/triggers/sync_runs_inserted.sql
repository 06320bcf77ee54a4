CREATE OR REPLACE TRIGGER sync_runs_inserted
    AFTER INSERT ON sync_runs
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT
    EXECUTE FUNCTION listener_ring_inserted();
