CREATE OR REPLACE TRIGGER orders_inbox_order_key
    BEFORE INSERT ON orders_inbox
    FOR EACH ROW
    WHEN (NEW.order_key IS NULL AND NEW.order_number IS NOT NULL)
    EXECUTE FUNCTION listener_order_key();
