-- ShipStation's orderKey: readable where it fits into 50 characters, else a prefix and a hash of the whole.
-- Caller: trigger orders_inbox_order_key. The same rule stands in listener/workflows/upload/plan.py; a test compares them.
CREATE OR REPLACE FUNCTION listener_order_key() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    whole text := pg_catalog.concat(coalesce(NEW.source, 'manual'), '-', NEW.order_number);
BEGIN
    NEW.order_key := CASE
        WHEN pg_catalog.length(whole) <= 50 THEN whole
        ELSE pg_catalog.concat(pg_catalog.left(whole, 17), '-', pg_catalog.md5(whole))
    END;
    RETURN NEW;
END
$$;
