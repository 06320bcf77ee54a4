-- The statements that take away from a table what attach added to it, and nothing else; one transaction.
-- Callers: detach_queue, `listener detach --dry-run`. Raises for a table that is not attached.
CREATE OR REPLACE FUNCTION detach_queue_plan(target regclass) RETURNS SETOF text
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    entry listener_queues;
    place text;
BEGIN
    SELECT q.* INTO entry FROM listener_queues AS q JOIN listener_queue_relations(target) AS r
        ON r.is_root AND (r.schema_name, r.table_name) = (q.table_schema, q.table_name);
    IF entry.name IS NULL THEN
        RAISE EXCEPTION 'table % is not attached', target USING ERRCODE = '22023',
            HINT = 'attached are: ' || coalesce((SELECT string_agg(q.name, ', ' ORDER BY q.name) FROM listener_queues AS q), 'none');
    END IF;
    place := format('%I.%I', entry.table_schema, entry.table_name);
    RETURN NEXT format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', place);
    RETURN QUERY
        SELECT format('DROP TRIGGER %I ON %I.%I', t.tgname, r.schema_name, r.table_name)
        FROM listener_queue_relations(target) AS r JOIN pg_trigger AS t ON t.tgrelid = r.relation AND t.tgparentid = 0
        WHERE entry.added -> 'triggers' ? t.tgname ORDER BY r.is_root DESC, r.relation, t.tgname;
    -- A leaf's index is the root's unless attach was cut off between the two.
    RETURN QUERY
        SELECT format('DROP INDEX %I.%I', r.schema_name, c.relname)
        FROM listener_queue_relations(target) AS r JOIN pg_index AS i ON i.indrelid = r.relation
        JOIN pg_class AS c ON c.oid = i.indexrelid AND NOT c.relispartition
        WHERE c.relname IN (SELECT listener_object_name(r.table_name, own.suffix) FROM listener_queue_indexes(entry) AS own)
        ORDER BY r.is_root DESC, r.relation, c.relname;
    RETURN QUERY
        SELECT format('ALTER TABLE %s %s', place, string_agg(format(
            CASE WHEN entry.added -> 'columns' ? a.attname THEN 'DROP COLUMN %I' ELSE 'ALTER COLUMN %I DROP DEFAULT' END, a.attname),
            ', ' ORDER BY a.attnum))
        FROM pg_attribute AS a
        WHERE a.attrelid = target AND NOT a.attisdropped
          AND (entry.added -> 'columns' ? a.attname OR entry.added -> 'defaults' ? a.attname)
        HAVING count(*) > 0;
    RETURN NEXT format('DELETE FROM %I.listener_queues WHERE name = %L', current_schema(), entry.name);
END
$$;
