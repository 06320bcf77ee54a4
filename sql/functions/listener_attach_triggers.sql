-- The part of attach_queue_plan that makes triggers: those that are not there, and the one whose columns have changed.
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
        SELECT false, format('CREATE TRIGGER %I %s ON %I.%I %s', wanted.name, wanted.before_table, r.schema_name, r.table_name, wanted.after_table)
        FROM listener_queue_triggers(entry) AS wanted
        JOIN listener_queue_relations(target) AS r ON r.is_root OR wanted.on_leaves
        WHERE wanted.name = 'listener_content' AND content_changed
           OR NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = r.relation AND t.tgname = wanted.name);
END
$$;
