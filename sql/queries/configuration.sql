-- name: configuration
SELECT param_key, param_value FROM configuration_params ORDER BY param_key;
