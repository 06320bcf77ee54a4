-- ShipStation's orderKey: readable where it fits into 50 characters and says which part is the source (a source with a
-- dash does not: a-b, c and a, b-c), else a prefix and a hash of both parts.
-- Caller: trigger orders_inbox_order_key. The same rule stands in listener/workflows/upload/plan.py; a test compares them.
CREATE OR REPLACE FUNCTION listener_order_key() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    source text := coalesce(NEW.source, 'manual');
    whole text := pg_catalog.concat(source, '-', NEW.order_number);
BEGIN
    NEW.order_key := CASE
        WHEN pg_catalog.length(whole) <= 50 AND pg_catalog.strpos(source, '-') = 0 THEN whole
        ELSE pg_catalog.concat(pg_catalog.left(whole, 17), '-', pg_catalog.md5(pg_catalog.concat(source, pg_catalog.chr(31), NEW.order_number)))
    END;
    RETURN NEW;
END
$$;
