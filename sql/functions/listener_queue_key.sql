-- The column that names a row: the one asked for, else the single-column primary key. Raises when it names none, or not
-- for sure: it must be NOT NULL and have a unique index of its own over the whole table.
CREATE OR REPLACE FUNCTION listener_queue_key(target regclass, wanted text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    candidates text[];
    chosen text := wanted;
    cure text;
BEGIN
    SELECT array_agg(a.attname ORDER BY a.attnum), coalesce(wanted, max(a.attname) FILTER (WHERE is_primary))
    INTO candidates, chosen
    FROM (SELECT i.indkey[0] AS number, bool_or(i.indisprimary) AS is_primary FROM pg_index AS i
          WHERE i.indrelid = target AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1
          GROUP BY 1) AS single
    JOIN pg_attribute AS a ON a.attrelid = target AND a.attnum = single.number
    WHERE a.attnotnull AND a.attname NOT IN (SELECT own.name FROM listener_queue_columns() AS own);
    IF chosen = ANY (candidates) THEN
        RETURN chosen;
    END IF;
    cure := coalesce('choose as the key one of: ' || array_to_string(candidates, ', '),
                     CASE WHEN (SELECT relkind = 'p' FROM pg_class WHERE oid = target)
                          THEN 'a partitioned table can only be a queue when it is partitioned by its key' END,
                     'make one: a NOT NULL column with a unique index on it alone (CREATE UNIQUE INDEX CONCURRENTLY)');
    IF chosen IS NULL THEN
        RAISE EXCEPTION '% has no primary key of a single column', target USING ERRCODE = '22023', HINT = cure;
    ELSIF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = target AND attname = chosen AND attnum > 0) THEN
        RAISE EXCEPTION '% has no column %', target, quote_ident(chosen) USING ERRCODE = '22023', HINT = cure;
    END IF;
    RAISE EXCEPTION 'column % of % cannot be the key: it must be NOT NULL, have a valid unique index on it alone and without WHERE, '
        'and be none of the queue''s own columns', quote_ident(chosen), target USING ERRCODE = '22023', HINT = cure;
END
$$;
