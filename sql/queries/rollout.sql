-- Figures of the roll-out's criteria, over the last %(hours)s hours. Times without a zone are the older scripts'.

-- name: checks
-- Safety checks by workflow. covered_h: since the oldest one that is kept (7 days) and before which none was missing for
-- %(gap_h)s hours, seen_h: since the newest.
SELECT workflow_name AS workflow, coalesce(sum(checks) FILTER (WHERE recent), 0)::bigint AS checks,
       coalesce(sum(coalesce(skipped, (action_taken = 'skipped')::integer)) FILTER (WHERE recent), 0)::bigint AS skipped,
       extract(epoch FROM LOCALTIMESTAMP - max(check_timestamp) FILTER (WHERE is_first))::float8 / 3600 AS covered_h,
       extract(epoch FROM LOCALTIMESTAMP - max(check_timestamp))::float8 / 3600 AS seen_h
FROM (
    SELECT *, check_timestamp > LOCALTIMESTAMP - make_interval(secs => %(hours)s * 3600.0) AS recent,
           coalesce(check_timestamp::timestamptz - lag(check_timestamp::timestamptz) OVER (PARTITION BY workflow_name ORDER BY check_timestamp)
                    > make_interval(secs => %(gap_h)s * 3600.0), true) AS is_first
    FROM polling_metrics WHERE check_timestamp IS NOT NULL
) AS all_checks
GROUP BY workflow_name;

-- name: uploads
-- End to end: from when the order was there and due until ShipStation had taken it; a retry counts from the beginning.
SELECT count(*) FILTER (WHERE status = 'Uploaded') AS done, count(*) FILTER (WHERE status = 'Failed') AS failed,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY took_s) FILTER (WHERE status = 'Uploaded') AS p95_s,
       max(took_s) FILTER (WHERE status = 'Uploaded') AS longest_s
FROM (
    SELECT status, extract(epoch FROM finished_at - CASE WHEN attempts <= 1 OR revision > 0 THEN greatest(created_at, scheduled_at) ELSE coalesce(created_at, scheduled_at) END)::float8 AS took_s
    FROM orders_inbox
    WHERE status IN ('Uploaded', 'Failed') AND finished_at > now() - make_interval(secs => %(hours)s * 3600.0)
) AS finished;

-- name: files
SELECT count(*) FILTER (WHERE status = 'Imported') AS done, count(*) FILTER (WHERE status = 'Failed') AS failed
FROM import_files WHERE finished_at > now() - make_interval(secs => %(hours)s * 3600.0);

-- name: syncs
SELECT count(*) FILTER (WHERE status = 'Succeeded') AS done, count(*) FILTER (WHERE status = 'Failed') AS failed
FROM sync_runs WHERE finished_at > now() - make_interval(secs => %(hours)s * 3600.0);

-- name: stage_settings
-- For how long these keys have been as they are; null = they have no history.
SELECT extract(epoch FROM now() - max(changed_at))::float8 / 3600 AS unchanged_h
FROM configuration_history WHERE lower(btrim(param_key)) = ANY (%(keys)s::text[]);

-- name: connected
-- The service's connections now, of all processes, without this command's own.
SELECT count(*) AS ours FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'order-listener%%';
