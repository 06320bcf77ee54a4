-- The triggers of a queue: name, what stands before ON table, and what after. The reasons are in sql/triggers/.
-- on_leaves: a partition needs its own, because a statement that names a partition fires no statement trigger of the root;
-- row triggers are cloned by the server. Content is compared as text: json and arrays of it have no equality, and a
-- comparison that fails would fail the writer. A partition's trigger may not name its root in a condition: once detached, it
-- would keep the root from being dropped.
CREATE OR REPLACE FUNCTION listener_queue_triggers(entry listener_queues)
RETURNS TABLE (name text, on_leaves boolean, before_table text, after_table text)
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $$
    SELECT 'listener_inserted', true, 'AFTER INSERT',
           format('REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT %sEXECUTE FUNCTION %I.listener_ring_inserted(%s)',
                  CASE WHEN entry.ready_word = 'Pending' AND c.relkind = 'r' THEN format(
                      'WHEN (NOT pg_catalog.pg_try_advisory_xact_lock_shared(1869374562, %L::regclass::oid::integer)) ', place.name) END,
                  current_schema(), CASE WHEN entry.ready_word <> 'Pending' THEN quote_literal(entry.ready_word) END)
    FROM (VALUES (format('%I.%I', entry.table_schema, entry.table_name))) AS place (name)
    LEFT JOIN pg_class AS c ON (c.relnamespace, c.relname) = (  -- to_regclass wants to enter the schema
        (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = entry.table_schema), entry.table_name)
    UNION ALL
    SELECT 'listener_became_due', false, 'AFTER UPDATE',
           format('FOR EACH ROW WHEN (NEW.status = %1$L AND (OLD.claim_id IS NULL OR NEW.claim_id IS NOT NULL)'
                  ' AND (OLD.status IS DISTINCT FROM %1$L OR NEW.scheduled_at < OLD.scheduled_at)'
                  ' AND NEW.scheduled_at <= now() + interval ''3600 seconds'') EXECUTE FUNCTION %2$I.listener_ring()', entry.ready_word, current_schema())
    UNION ALL
    SELECT 'listener_retry', false, 'BEFORE UPDATE OF status',
           format('FOR EACH ROW WHEN (NEW.status = %1$L AND OLD.status IS DISTINCT FROM %1$L AND (OLD.claim_id IS NULL OR NEW.claim_id IS NOT NULL))'
                  ' EXECUTE FUNCTION %2$I.listener_retry_by_hand()', entry.ready_word, current_schema())
    UNION ALL
    SELECT 'listener_content', false, 'BEFORE UPDATE OF ' || string_agg(quote_ident(c), ', '),
           format('FOR EACH ROW WHEN (%s) EXECUTE FUNCTION %I.listener_content_changed(%L, %L)',
                  string_agg(format('NEW.%1$I::text IS DISTINCT FROM OLD.%1$I::text', c), ' OR '), current_schema(), entry.done_word, entry.ready_word)
    FROM unnest(entry.content) AS c
    HAVING count(*) > 0
$$;
