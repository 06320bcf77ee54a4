CREATE OR REPLACE TRIGGER import_files_inserted
    AFTER INSERT ON import_files
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT
    WHEN (NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, 'import_files'::regclass::oid::integer))
    EXECUTE FUNCTION listener_ring_inserted();
