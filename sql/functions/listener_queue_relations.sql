-- Where a table's rows are: the table itself, and each leaf of a partitioned one.
-- is_root: it is the table that was asked for. is_leaf: it holds rows.
CREATE OR REPLACE FUNCTION listener_queue_relations(target regclass)
RETURNS TABLE (relation regclass, schema_name text, table_name text, kind "char", is_root boolean, is_leaf boolean)
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $$
    SELECT c.oid::regclass, n.nspname::text, c.relname::text, c.relkind, c.oid = target, c.relkind <> 'p'
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = target OR c.relkind <> 'p' AND c.oid IN (SELECT relid FROM pg_partition_tree(target))
    ORDER BY c.oid <> target, 2, 3
$$;
