-- Raises when a column cannot be content, whose change makes a finished row work again.
CREATE OR REPLACE FUNCTION listener_check_content(target regclass, key text, content text[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    name text;
    reason text;
BEGIN
    FOREACH name IN ARRAY content LOOP
        SELECT CASE
            WHEN a.attname IS NULL THEN 'there is no such column'
            WHEN a.attname = key THEN 'it is the key'
            WHEN a.attgenerated <> '' THEN 'it is generated: name the columns that it is made of'
            WHEN a.attname IN (SELECT own.name FROM listener_queue_columns() AS own) THEN 'it is one of the queue''s own columns'
        END INTO reason
        FROM (VALUES (true)) AS one
        LEFT JOIN pg_attribute AS a ON a.attrelid = target AND a.attname = name AND a.attnum > 0 AND NOT a.attisdropped;
        IF reason IS NOT NULL THEN
            RAISE EXCEPTION 'column % of % cannot be content: %', quote_ident(name), target, reason USING ERRCODE = '22023',
                HINT = 'choose from: ' || (
                    SELECT coalesce(string_agg(a.attname, ', ' ORDER BY a.attnum), 'none') FROM pg_attribute AS a
                    WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attname <> key
                      AND a.attname NOT IN (SELECT own.name FROM listener_queue_columns() AS own));
        END IF;
    END LOOP;
END
$$;
