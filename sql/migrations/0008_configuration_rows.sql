-- A row for every key: an UPDATE that finds none changes nothing and says nothing, and it may be the emergency stop.
-- What is there, in any spelling, stays.

INSERT INTO configuration_params (param_key, param_value, description)
SELECT seed.key, seed.value, seed.description
FROM (VALUES
    ('upload_enabled', 'true', 'false = claim no orders; running work ends'),
    ('import_enabled', 'true', 'false = claim no files; running work ends'),
    ('sync_enabled', 'true', 'false = claim no sync runs; running work ends'),
    ('upload_batch_size', '100', 'orders in one call; ShipStation takes 100'),
    ('upload_concurrency', '2', 'handler calls of this queue at once, per process'),
    ('import_concurrency', '2', 'handler calls of this queue at once, per process'),
    ('sync_concurrency', '4', 'handler calls of this queue at once, per process'),
    ('max_attempts', '10', 'before a row goes to Failed'),
    ('operation_timeout', '300', 'that one handler call may take, also one that runs already'),
    ('max_concurrent_operations', '15', 'handler calls of all queues at once, per process'),
    ('log_level', 'info', 'least level that is logged'),
    ('polling_metrics_enabled', 'true', 'write checks to polling_metrics, kept for 7 days'),
    ('retention_days', '30', 'that events are kept')
) AS seed (key, value, description)
WHERE NOT EXISTS (SELECT FROM configuration_params AS present WHERE lower(btrim(present.param_key)) = lower(seed.key));
