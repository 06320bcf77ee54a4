-- Live configuration: what the service reads, and what `listener config` does.

-- name: configuration
-- Every row, with the number of the newest change, in one snapshot and one row: each replica waits for it at each change.
-- Others may keep large values here; no word of ours is longer than that.
SELECT (SELECT coalesce(max(id), 0) FROM configuration_history) AS version,
       coalesce(array_agg(param_key::text), ARRAY[]::text[]) AS keys,
       coalesce(array_agg(left(btrim(param_value, E' \t\n\013\f\r'), 100)), ARRAY[]::text[]) AS "values"
FROM configuration_params;

-- name: write_value
SELECT param_key, was_there, old_value FROM config_set(%(param_key)s, %(param_value)s);

-- name: history
SELECT id, param_key, old_value, new_value, action, changed_at, changed_by FROM configuration_history
WHERE %(param_key)s::text IS NULL OR lower(param_key) = lower(%(param_key)s)
ORDER BY id DESC LIMIT %(most)s;

-- name: clock
SELECT clock_timestamp() AS moment;

-- name: restore
SELECT param_key, old_value, new_value FROM config_restore(%(moment)s::timestamptz);

-- name: undo_update
-- Printed by `listener config set`, never run by us.
UPDATE {table} SET param_value = {value} WHERE param_key = {key};

-- name: undo_insert
-- Printed likewise, when there was no row.
DELETE FROM {table} WHERE param_key = {key};
