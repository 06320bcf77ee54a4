-- The row of a new key; what is there, in any spelling, stays.

INSERT INTO configuration_params (param_key, param_value, description)
SELECT 'doorbell_enabled', 'true', 'false = every INSERT notifies, also while the listeners are busy and look by themselves'
WHERE NOT EXISTS (SELECT FROM configuration_params WHERE lower(btrim(param_key)) = 'doorbell_enabled');
