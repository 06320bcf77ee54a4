-- Partitions that were made after their table was attached and ring nothing for a row that is inserted straight into them,
-- or were a queue of their own and ring that one's bell; the safety poll finds it all the same. Cure: attach the queue's
-- table again.
CREATE OR REPLACE FUNCTION listener_silent_partitions() RETURNS TABLE (queue text, partition regclass)
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $$
    SELECT q.name, r.relation
    FROM listener_queues AS q
    CROSS JOIN LATERAL listener_queue_relations(to_regclass(format('%I.%I', q.table_schema, q.table_name))) AS r
    WHERE NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = r.relation AND t.tgname = 'listener_inserted'
                                                     AND (r.is_root OR t.tgqual IS NULL))
    ORDER BY q.name, r.schema_name, r.table_name
$$;
