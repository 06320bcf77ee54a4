-- Two runs of one account become one: it reads at least what each would have read. Never raises, whatever a hand wrote.
-- Caller: listener_one_waiting_run(), and whoever inserts a run. More than 200 urls: too many to be told apart, the caller
-- reads everything that changed instead.
CREATE OR REPLACE FUNCTION listener_merge_sync_params(mine jsonb, theirs jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'lookback_minutes', greatest(mine -> 'lookback_minutes', theirs -> 'lookback_minutes'),
        'batch_size', greatest(mine -> 'batch_size', theirs -> 'batch_size'),
        'max_pages', CASE WHEN mine ? 'max_pages' AND theirs ? 'max_pages' THEN greatest(mine -> 'max_pages', theirs -> 'max_pages') END,
        'dry_run', CASE WHEN mine -> 'dry_run' = 'true' AND theirs -> 'dry_run' = 'true' THEN true END,
        'urls', CASE WHEN mine ? 'urls' OR theirs ? 'urls'
                THEN coalesce(mine -> 'urls', '[]') || coalesce(theirs -> 'urls', '[]') END))
$$;
