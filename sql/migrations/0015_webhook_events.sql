-- Webhooks as they came, before anything is made of them.

CREATE TABLE IF NOT EXISTS webhook_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connector text NOT NULL,
    account text NOT NULL,
    dedupe_key text NOT NULL,
    body bytea NOT NULL,
    deliveries integer NOT NULL DEFAULT 1,
    received_at timestamptz NOT NULL DEFAULT now(),
    last_received_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (connector, account, dedupe_key)
);

COMMENT ON TABLE webhook_events IS 'Raw bodies; a repeat within ten minutes is the same delivery and starts no run';

-- The row of a new key; what is there, in any spelling, stays.
INSERT INTO configuration_params (param_key, param_value, description)
SELECT 'sync_calls_per_cycle', '60', 'API calls that one sync may make; the next one goes on from there'
WHERE NOT EXISTS (SELECT FROM configuration_params WHERE lower(btrim(param_key)) = 'sync_calls_per_cycle');
