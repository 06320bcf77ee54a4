CREATE OR REPLACE TRIGGER orders_inbox_retry
    BEFORE UPDATE OF status ON orders_inbox
    FOR EACH ROW
    WHEN (NEW.status = 'Pending' AND OLD.status IS DISTINCT FROM 'Pending' AND OLD.claim_id IS NULL)
    EXECUTE FUNCTION listener_retry_by_hand();
