-- The rows of new keys; what is there, in any spelling, stays.
INSERT INTO configuration_params (param_key, param_value, description)
SELECT key, value, 'who starts first when all common slots are busy: 1 before 9'
FROM (VALUES ('upload_priority', '1'), ('import_priority', '4'), ('sync_priority', '1')) AS wanted (key, value)
WHERE NOT EXISTS (SELECT FROM configuration_params WHERE lower(btrim(param_key)) = key);
