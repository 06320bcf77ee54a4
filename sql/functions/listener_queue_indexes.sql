-- The indexes of a queue: suffix of the name, and what follows the table. Partial ones only, so that finished rows cost
-- a claim nothing; status comes first as in the claim's ORDER BY.
CREATE OR REPLACE FUNCTION listener_queue_indexes(entry listener_queues) RETURNS TABLE (suffix text, definition text)
LANGUAGE sql IMMUTABLE
AS $$
    VALUES
        ('_listener_due', format('(status, priority, scheduled_at, %I) WHERE status = %L', entry.key_column, entry.ready_word)),
        ('_listener_processing', $d$(claimed_by) WHERE status = 'Processing'$d$),
        ('_listener_failed', $d$(finished_at) WHERE status = 'Failed'$d$)
$$;
