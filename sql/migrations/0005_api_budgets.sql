-- Calls left for one API account, shared by all replicas: a fixed rate window and a circuit breaker in one row.

CREATE TABLE IF NOT EXISTS api_budgets (
    connector text NOT NULL,
    account text NOT NULL,
    call_limit integer NOT NULL,
    window_s double precision NOT NULL,
    rate_window bigint NOT NULL DEFAULT 0,
    remaining integer NOT NULL,
    resets_at timestamptz NOT NULL DEFAULT to_timestamp(0),
    paused_until timestamptz,
    pause_reason text,
    pause_message text,
    paused_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (connector, account)
);

-- One narrow row that is updated at every call: keep its versions on one page.
ALTER TABLE api_budgets SET (fillfactor = 10, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

COMMENT ON COLUMN api_budgets.rate_window IS 'grows with each rate window; a reply corrects only the window it belongs to';
COMMENT ON COLUMN api_budgets.remaining IS 'calls that may still be made before resets_at';
COMMENT ON COLUMN api_budgets.paused_until IS 'no call before; then one probe for all replicas; null = not paused';
COMMENT ON COLUMN api_budgets.failures IS 'consecutive failed probes, the exponent of the back-off';
