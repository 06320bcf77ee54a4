-- Raises, with what to do, when a table cannot be a queue whatever its columns are.
CREATE OR REPLACE FUNCTION listener_check_attachable(target regclass) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    kinds CONSTANT jsonb := '{"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence",
                              "i": "an index", "I": "an index", "c": "a type"}';
    found record;
    parent regclass := (SELECT inhparent FROM pg_inherits WHERE inhrelid = target LIMIT 1);
BEGIN
    SELECT c.*, n.nspname INTO found FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = target;
    IF found.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is %, and only a table can be a queue', target, coalesce(kinds ->> found.relkind::text, 'no table')
            USING ERRCODE = '22023', HINT = 'attach the table that holds the rows';
    ELSIF found.relpersistence = 't' THEN
        RAISE EXCEPTION '% is a temporary table: no listener can see its rows', target
            USING ERRCODE = '22023', HINT = 'attach a table that lasts';
    ELSIF found.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') THEN
        RAISE EXCEPTION '% belongs to PostgreSQL itself', target USING ERRCODE = '22023', HINT = 'attach a table of your own';
    ELSIF found.nspname = current_schema() AND (found.relname LIKE 'listener\_%' OR found.relname IN (
        'orders_inbox', 'import_files', 'sync_runs', 'configuration_params', 'configuration_history', 'polling_state', 'polling_metrics',
        'api_budgets', 'shipstation_orders', 'shipstation_parcels', 'sync_quarantine', 'webhook_events'))
    THEN
        RAISE EXCEPTION '% is one of the listener''s own tables', target USING ERRCODE = '22023',
            HINT = coalesce('it is the queue "' || ('{"orders_inbox": "upload", "import_files": "import", "sync_runs": "sync"}'::jsonb
                                                    ->> found.relname::text) || '" already', 'attach a table of your own');
    ELSIF found.nspname = current_schema() AND found.relname IN ('upload', 'import', 'sync') THEN
        RAISE EXCEPTION '% would be a queue of the same name as one of the listener''s own', target
            USING ERRCODE = '22023', HINT = 'rename the table, or move it to another schema';
    ELSIF found.relispartition THEN
        RAISE EXCEPTION '% is a partition of %', target, parent
            USING ERRCODE = '22023', HINT = format('attach %s', pg_partition_root(target));
    ELSIF parent IS NOT NULL OR found.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = target) THEN
        RAISE EXCEPTION '% inherits from another table or another one from it: no key is unique over both', target
            USING ERRCODE = '22023', HINT = 'use partitions, or end the inheritance with ALTER TABLE … NO INHERIT';
    ELSIF EXISTS (SELECT FROM listener_queue_relations(target) AS leaf WHERE leaf.is_leaf AND leaf.kind <> 'r') THEN
        RAISE EXCEPTION '% has a partition that is a foreign table, whose rows cannot be claimed', target
            USING ERRCODE = '22023', HINT = 'detach that partition from the table first';
    ELSIF NOT pg_has_role(found.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'only its owner can change table %, which is %, not %', target, found.relowner::regrole, quote_ident(current_user)
            USING ERRCODE = '42501', HINT = format('run this as %s', found.relowner::regrole);
    END IF;
END
$$;
