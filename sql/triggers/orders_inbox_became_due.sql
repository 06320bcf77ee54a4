-- A person's retry, an edit or a scheduled_at moved forward. Our own claims and settles come from a row that has a
-- claim_id or end elsewhere than in Pending, so they never enter PL/pgSQL.
CREATE OR REPLACE TRIGGER orders_inbox_became_due
    AFTER UPDATE ON orders_inbox
    FOR EACH ROW
    WHEN (NEW.status = 'Pending' AND OLD.claim_id IS NULL
          AND (OLD.status IS DISTINCT FROM 'Pending' OR NEW.scheduled_at < OLD.scheduled_at))
    EXECUTE FUNCTION listener_ring();
