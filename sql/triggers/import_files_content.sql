-- OF the content columns: a claim, a settle and the report do not name them, so the content is not even looked at.
CREATE OR REPLACE TRIGGER import_files_content
    BEFORE UPDATE OF content, body, order_source ON import_files
    FOR EACH ROW
    WHEN (NEW.content IS DISTINCT FROM OLD.content OR NEW.body IS DISTINCT FROM OLD.body
          OR NEW.order_source IS DISTINCT FROM OLD.order_source)
    EXECUTE FUNCTION listener_content_changed('Imported');
