-- A person's retry, or other content: what was merged before does not count. Our own rescue leaves it, so that a file
-- whose process died between commit and settle is not imported again.
CREATE OR REPLACE TRIGGER import_files_forget
    BEFORE UPDATE OF status, content, body, order_source ON import_files
    FOR EACH ROW
    WHEN (OLD.merged_at IS NOT NULL
          AND (NEW.content IS DISTINCT FROM OLD.content OR NEW.body IS DISTINCT FROM OLD.body
               OR NEW.order_source IS DISTINCT FROM OLD.order_source
               OR (NEW.status = 'Pending' AND OLD.status IS DISTINCT FROM 'Pending' AND OLD.claim_id IS NULL)))
    EXECUTE FUNCTION listener_import_forget();
