-- A run goes back to Pending (a retry, a release, a rescue) while another one of its account is waiting: what it asked for
-- goes to that one, and it is Superseded. Without this the unique index would refuse our own settle.
-- An INSERT that names no account means the one that calls were made for lately: else nobody would have its credentials.
-- Caller: row-level BEFORE trigger of sync_runs; after sync_runs_retry, by name. Locks: one advisory lock for the account,
-- until the transaction ends, and the waiting row, which a claim may hold for a moment; one that was claimed meanwhile is
-- not Pending any more, and then this row may wait.
CREATE OR REPLACE FUNCTION listener_one_waiting_run() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.account = 'default' THEN
        NEW.account := coalesce((SELECT known.account FROM api_budgets AS known WHERE known.connector = NEW.connector
                                 ORDER BY known.account = 'default' DESC, known.updated_at DESC LIMIT 1), NEW.account);
    END IF;
    PERFORM pg_advisory_xact_lock(1869374563, hashtext(concat(TG_RELID, NEW.connector, NEW.account)));
    IF TG_OP = 'INSERT' THEN
        RETURN NEW;
    END IF;
    UPDATE sync_runs AS waiting
    SET params = listener_merge_sync_params(waiting.params, CASE WHEN jsonb_typeof(NEW.params) = 'object' THEN NEW.params
            - CASE WHEN NEW.stats -> 'looked_back_minutes' >= NEW.params -> 'lookback_minutes'
              THEN 'lookback_minutes' ELSE '' END  -- one that is noted with the lists is not begun again
            - CASE WHEN NEW.stats ? 'is_cut' THEN 'urls' ELSE '' END END),  -- it had no time for them: the lists tell the same
        reason = least(waiting.reason, NEW.reason,  -- manual before schedule before webhook, as in the alphabet
                       CASE WHEN NEW.stats ? 'is_cut' THEN 'schedule' END)
    WHERE waiting.connector = NEW.connector AND waiting.account = NEW.account AND waiting.status = 'Pending' AND waiting.id <> NEW.id;
    IF FOUND THEN
        NEW.status := 'Superseded';
        NEW.finished_at := now();
    END IF;
    RETURN NEW;
END
$$;
