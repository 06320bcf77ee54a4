-- What could not be read or stored: it neither holds up the rest nor is it forgotten.

CREATE TABLE IF NOT EXISTS sync_quarantine (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connector text NOT NULL DEFAULT 'shipstation',
    account text NOT NULL,
    list text NOT NULL,
    place text NOT NULL,
    query jsonb,
    row jsonb,
    error text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    retry_at timestamptz NOT NULL DEFAULT now() + interval '5 minutes',
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    UNIQUE (connector, account, list, place)
);

CREATE INDEX IF NOT EXISTS sync_quarantine_due ON sync_quarantine (connector, account, retry_at)
    WHERE resolved_at IS NULL AND query IS NOT NULL;

COMMENT ON TABLE sync_quarantine IS 'Records of an outside API that could not be read; each is tried again by itself, less and less often';
COMMENT ON COLUMN sync_quarantine.place IS 'the record''s id, or between which records it lies in the list';
COMMENT ON COLUMN sync_quarantine.query IS 'the shortest list that contains it; null = the record itself is here, in row';
