-- The part of attach_queue_plan that makes triggers: those that are not there, the one whose columns have changed, and those
-- that ring otherwise than they should: of an older release, of a table that has become a partition, or copied from another
-- table, which their condition still names.
CREATE OR REPLACE FUNCTION listener_attach_triggers(target regclass, entry listener_queues, content_changed boolean)
RETURNS TABLE (alone boolean, statement text)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
BEGIN
    RETURN QUERY
        SELECT false, format('DROP TRIGGER %I ON %I.%I', t.tgname, entry.table_schema, entry.table_name)
        FROM pg_trigger AS t
        WHERE t.tgrelid = target AND t.tgname = 'listener_content' AND content_changed
        UNION ALL
        SELECT false, format('CREATE %s %I %s ON %I.%I %s', CASE WHEN is_other THEN 'OR REPLACE TRIGGER' ELSE 'TRIGGER' END,
                             wanted.name, wanted.before_table, r.schema_name, r.table_name, wanted.after_table)
        FROM listener_queue_triggers(entry) AS wanted
        JOIN listener_queue_relations(target) AS r ON r.is_root OR wanted.on_leaves
        LEFT JOIN pg_trigger AS t ON t.tgrelid = r.relation AND t.tgname = wanted.name
        CROSS JOIN LATERAL (SELECT wanted.name = 'listener_inserted' AND t.oid IS NOT NULL AND (
            (t.tgqual IS NULL) = (wanted.after_table ~ ' WHEN ') OR (t.tgnargs = 0) = (entry.ready_word <> 'Pending')
            OR r.relation IN (SELECT s.partition FROM listener_silent_partitions() AS s))) AS found (is_other)
        WHERE t.oid IS NULL OR is_other OR wanted.name = 'listener_content' AND content_changed;
END
$$;
