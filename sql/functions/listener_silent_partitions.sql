-- Tables of queues, and partitions of them, that ring nothing for a row that is inserted straight into them, though the safety
-- poll finds it: a partition made after its table was attached, or with the trigger of the queue that it was itself; a table with
-- a trigger copied from another one, or put under a table that is no queue. Cure: attach the queue's table again, which mends it
-- or says what stands in the way.
CREATE OR REPLACE FUNCTION listener_silent_partitions() RETURNS TABLE (queue text, partition regclass)
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $$
    SELECT q.name, r.relation
    FROM listener_queues AS q
    JOIN pg_namespace AS n ON n.nspname = q.table_schema  -- to_regclass wants to enter the schema
    JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = q.table_name
    CROSS JOIN LATERAL listener_queue_relations(c.oid) AS r
    WHERE r.is_root AND pg_partition_root(r.relation) <> r.relation
       OR NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = r.relation AND t.tgname = 'listener_inserted'
                      AND (r.is_root OR t.tgqual IS NULL)
                      AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid
                                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> t.tgrelid))
    ORDER BY q.name, r.schema_name, r.table_name
$$;
