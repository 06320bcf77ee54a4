-- What of each rate window the synchronisation has had, and when it last asked: it has a quarter, however many orders wait.
ALTER TABLE api_budgets ADD COLUMN IF NOT EXISTS sync_calls integer NOT NULL DEFAULT 0;
ALTER TABLE api_budgets ADD COLUMN IF NOT EXISTS sync_asked_at timestamptz;

COMMENT ON COLUMN api_budgets.sync_calls IS 'calls of this rate window that the synchronisation has made';
COMMENT ON COLUMN api_budgets.sync_asked_at IS 'when the synchronisation last asked for a call; uploads leave it the rest of its quarter for a moment after';
