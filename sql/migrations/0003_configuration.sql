-- Configuration is a table. Values of an older installation stay as they are (DO NOTHING everywhere, also for
-- UNIFIED_SYNC_INTERVAL, whose older migration would have undone an operator's rollback).

CREATE TABLE IF NOT EXISTS configuration_params (
    param_key text PRIMARY KEY,
    param_value text
);

DO $key$
BEGIN
    -- `ON CONFLICT (param_key)` of the older scripts and of operators needs a unique key.
    IF NOT EXISTS (
        SELECT FROM pg_index i
        WHERE i.indrelid = 'configuration_params'::regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
          AND i.indnkeyatts = 1 AND i.indkey[0] = (
              SELECT attnum FROM pg_attribute WHERE attrelid = 'configuration_params'::regclass AND attname = 'param_key')
    ) THEN
        CREATE UNIQUE INDEX configuration_params_param_key_key ON configuration_params (param_key);
    END IF;
END
$key$;

ALTER TABLE configuration_params
    ADD COLUMN IF NOT EXISTS description text,
    ADD COLUMN IF NOT EXISTS updated_at timestamptz DEFAULT now(),
    ADD COLUMN IF NOT EXISTS updated_by text;

CREATE TABLE IF NOT EXISTS configuration_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    param_key text NOT NULL,
    old_value text,
    new_value text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL DEFAULT session_user
);

CREATE INDEX IF NOT EXISTS configuration_history_key_time ON configuration_history (param_key, changed_at DESC);

-- The older plans' upper-case names are rows of their own, so that their SQL works word for word. A key that is
-- missing takes the value of its twin where that exists: an operator's setting survives the new name.
INSERT INTO configuration_params (param_key, param_value, description)
SELECT seed.key, coalesce((SELECT twin.param_value FROM configuration_params AS twin WHERE twin.param_key = seed.twin), seed.value), seed.description
FROM (VALUES
    ('fast_polling_enabled', NULL, 'true', 'Enable 15-second polling checks'),
    ('fast_polling_interval', 'FAST_POLLING_INTERVAL', '15', 'Seconds between polling checks'),
    ('sync_interval', 'UNIFIED_SYNC_INTERVAL', '120', 'Seconds between ShipStation sync cycles'),
    ('ENABLE_FAST_XML_POLLING', NULL, 'true', 'Enable fast polling of the XML import'),
    ('ENABLE_FAST_UPLOAD_POLLING', NULL, 'true', 'Enable fast polling of the ShipStation upload'),
    ('FAST_POLLING_INTERVAL', 'fast_polling_interval', '15', 'Seconds between polling checks (same as fast_polling_interval)'),
    ('UNIFIED_SYNC_INTERVAL', 'sync_interval', '120', 'Seconds between ShipStation sync cycles (same as sync_interval)')
) AS seed (key, twin, value, description)
WHERE NOT EXISTS (SELECT FROM configuration_params AS present WHERE present.param_key = seed.key);
