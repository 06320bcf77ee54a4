-- What `config_restore` and the reports need beyond the older scripts' columns. Additive: older code still runs.

-- A value may be null, so its absence is told by the action. description: of the row, to bring a deleted one back whole.
ALTER TABLE configuration_history
    ADD COLUMN IF NOT EXISTS action text NOT NULL DEFAULT 'update' CHECK (action IN ('insert', 'update', 'delete')),
    ADD COLUMN IF NOT EXISTS description text;

COMMENT ON TABLE configuration_history IS 'Every change of configuration_params, in the order of commit; written by its triggers';

-- One row sums the checks of up to a second, so that a busy queue does not write more metrics than orders.
ALTER TABLE polling_metrics
    ADD COLUMN IF NOT EXISTS checks integer NOT NULL DEFAULT 1,
    ADD COLUMN IF NOT EXISTS skipped integer,
    ADD COLUMN IF NOT EXISTS longest_ms integer;

COMMENT ON COLUMN polling_metrics.record_count IS 'rows claimed by these checks';
COMMENT ON COLUMN polling_metrics.duration_ms IS 'sum over these checks';
COMMENT ON COLUMN polling_metrics.skipped IS 'checks that claimed nothing; null = as action_taken says';

CREATE OR REPLACE VIEW polling_metrics_hourly AS
SELECT date_trunc('hour', check_timestamp) AS hour,
       workflow_name,
       sum(checks) AS checks,
       round(sum(duration_ms)::numeric / nullif(sum(checks), 0), 2) AS avg_ms,
       max(coalesce(longest_ms, duration_ms)) AS max_ms,
       round(100.0 * sum(coalesce(skipped, (action_taken = 'skipped')::integer)) / nullif(sum(checks), 0), 1) AS skip_pct
FROM polling_metrics
WHERE check_timestamp > LOCALTIMESTAMP - interval '24 hours'
GROUP BY date_trunc('hour', check_timestamp), workflow_name
ORDER BY hour DESC, workflow_name;

CREATE OR REPLACE VIEW polling_metrics_last_hour AS
SELECT workflow_name,
       sum(checks) AS total_checks,
       round(sum(duration_ms)::numeric / nullif(sum(checks), 0), 2) AS avg_duration_ms,
       sum(checks - coalesce(skipped, (action_taken = 'skipped')::integer)) AS processed_count,
       sum(coalesce(skipped, (action_taken = 'skipped')::integer)) AS skipped_count,
       round(100.0 * sum(coalesce(skipped, (action_taken = 'skipped')::integer)) / nullif(sum(checks), 0), 1) AS skip_rate_pct
FROM polling_metrics
WHERE check_timestamp > LOCALTIMESTAMP - interval '1 hour'
GROUP BY workflow_name
ORDER BY workflow_name;
