CREATE OR REPLACE TRIGGER sync_runs_inserted
    AFTER INSERT ON sync_runs
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT
    WHEN (NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, 'sync_runs'::regclass::oid::integer))
    EXECUTE FUNCTION listener_ring_inserted();
