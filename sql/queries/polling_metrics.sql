-- polling_metrics: written at most once per second and queue, cleaned every hour.

-- name: write
-- Not worth a wait for the disk: a row lost in a server crash is a second without a figure.
INSERT INTO polling_metrics (workflow_name, record_count, action_taken, duration_ms, checks, skipped, longest_ms)
SELECT %(workflow)s, %(claimed)s, %(action)s, %(duration_ms)s, %(checks)s, %(skipped)s, %(longest_ms)s
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unflushed;

-- name: clean
SELECT cleanup_old_metrics(%(days_to_keep)s, %(most)s) AS deleted;
