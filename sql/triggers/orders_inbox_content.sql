-- OF the content columns: a claim, a settle and what sync writes do not name them, so the payload is not even looked at.
-- Compared as text, because an adopted table may hold json, which has no equality.
CREATE OR REPLACE TRIGGER orders_inbox_content
    BEFORE UPDATE OF payload, source, order_number ON orders_inbox
    FOR EACH ROW
    WHEN (NEW.payload::text IS DISTINCT FROM OLD.payload::text
          OR NEW.source IS DISTINCT FROM OLD.source
          OR NEW.order_number IS DISTINCT FROM OLD.order_number)
    EXECUTE FUNCTION listener_content_changed('Uploaded');
