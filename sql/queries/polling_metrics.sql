-- polling_metrics: where each queue's checks are summed.

-- name: write
-- Not worth a wait for the disk: a row lost in a server crash is a second without a figure.
INSERT INTO polling_metrics (workflow_name, record_count, action_taken, duration_ms, checks, skipped, longest_ms)
SELECT left(r.workflow, 100), r.claimed, r.action, r.duration_ms, r.checks, r.skipped, r.longest_ms
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unflushed,
     jsonb_to_recordset(%(rows)s::jsonb) AS r (
         workflow text, claimed integer, action text, duration_ms integer, checks integer, skipped integer, longest_ms integer
     );

-- name: clean
SELECT cleanup_old_metrics(%(days_to_keep)s, %(most)s) AS deleted;
