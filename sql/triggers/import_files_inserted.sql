CREATE OR REPLACE TRIGGER import_files_inserted
    AFTER INSERT ON import_files
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT
    EXECUTE FUNCTION listener_ring_inserted();
