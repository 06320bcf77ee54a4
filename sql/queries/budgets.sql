-- Calls left for one API account, shared by all replicas.

-- name: ensure_budget
-- The account's row, with the limit that this process was told.
INSERT INTO api_budgets (connector, account, call_limit, window_s, remaining)
VALUES (%(connector)s, %(account)s, %(call_limit)s, %(window_s)s, %(call_limit)s)
ON CONFLICT (connector, account) DO UPDATE
SET call_limit = EXCLUDED.call_limit, window_s = EXCLUDED.window_s,
    remaining = least(api_budgets.remaining, EXCLUDED.call_limit)
WHERE (api_budgets.call_limit, api_budgets.window_s) IS DISTINCT FROM (EXCLUDED.call_limit, EXCLUDED.window_s);

-- name: take_permit
-- Reserve one call. granted = false: wait_s says how long there will be none, reason says why.
-- A new window opens when the old one has run out; while the connector is paused nothing is granted, and after the
-- pause one probe: it moves paused_until on by probe_s, so that everybody else waits for what it finds.
-- The row lock makes takers queue for microseconds; not flushed, because a lost reservation is a call not counted twice.
WITH account AS (
    SELECT b.*, clock_timestamp() AS at FROM api_budgets AS b
    WHERE connector = %(connector)s AND account = %(account)s FOR UPDATE
), verdict AS (
    SELECT account.*, paused_until IS NOT NULL AS is_paused,
           paused_until > at AS must_wait,
           resets_at <= at AS rolled_over,
           resets_at > at AND remaining <= 0 AS is_spent
    FROM account
), taken AS (
    UPDATE api_budgets AS b
    SET remaining = CASE WHEN v.rolled_over THEN b.call_limit ELSE b.remaining END - 1,
        rate_window = b.rate_window + v.rolled_over::integer,
        resets_at = CASE WHEN v.rolled_over THEN v.at + make_interval(secs => b.window_s) ELSE b.resets_at END,
        paused_until = CASE WHEN v.is_paused THEN v.at + make_interval(secs => %(probe_s)s) END,
        updated_at = v.at
    FROM verdict AS v
    WHERE b.connector = v.connector AND b.account = v.account AND NOT coalesce(v.must_wait, false) AND NOT v.is_spent
    RETURNING b.rate_window
)
SELECT taken.rate_window IS NOT NULL AS granted, taken.rate_window, v.is_paused AS is_probe,
       greatest(extract(epoch FROM CASE WHEN v.must_wait THEN v.paused_until ELSE v.resets_at END - v.at), 0)::float8 AS wait_s,
       CASE WHEN v.must_wait THEN v.pause_reason ELSE 'budget' END AS reason,
       set_config('synchronous_commit', 'off', true)
FROM verdict AS v LEFT JOIN taken ON true;

-- name: give_back_permit
-- The call was not made: the window gets it back, and a probe that was not sent leaves the probe to the next one.
UPDATE api_budgets
SET remaining = CASE WHEN rate_window = %(rate_window)s THEN least(remaining + 1, call_limit) ELSE remaining END,
    paused_until = CASE WHEN %(is_probe)s AND paused_until IS NOT NULL THEN clock_timestamp() ELSE paused_until END
WHERE connector = %(connector)s AND account = %(account)s
RETURNING set_config('synchronous_commit', 'off', true);

-- name: report_ok
-- The API answered. Its headers correct the window they belong to: never upwards within a window, because calls of
-- others are still on their way. A reset later than the window's middle after our end means that the API's window has
-- rolled over before ours: adopt it. margin_s covers the header's whole seconds.
WITH before AS (
    SELECT b.*, clock_timestamp() AS at,
           clock_timestamp() + make_interval(secs => %(reset_s)s::float8 + %(margin_s)s) AS seen_reset
    FROM api_budgets AS b WHERE connector = %(connector)s AND account = %(account)s FOR UPDATE
)
UPDATE api_budgets AS b
SET rate_window = b.rate_window + (before.rolled AND before.mine)::integer,
    remaining = CASE
        WHEN %(remaining)s::integer IS NULL OR NOT before.mine THEN b.remaining
        WHEN before.rolled THEN %(remaining)s::integer
        ELSE least(b.remaining, %(remaining)s::integer) END,
    resets_at = CASE
        WHEN before.seen_reset IS NULL OR NOT before.mine THEN b.resets_at
        WHEN before.rolled THEN before.seen_reset
        ELSE least(b.resets_at, before.seen_reset) END,
    paused_until = NULL, pause_reason = NULL, pause_message = NULL, paused_at = NULL, failures = 0,
    updated_at = before.at
FROM (SELECT before.*, rate_window = %(rate_window)s AS mine,
             coalesce(seen_reset > resets_at + make_interval(secs => window_s / 2), false) AS rolled FROM before) AS before
WHERE b.connector = before.connector AND b.account = before.account
RETURNING b.remaining, before.paused_until IS NOT NULL AS was_paused, set_config('synchronous_commit', 'off', true);

-- name: report_unavailable
-- Pause the account for all replicas. A late failure of a call that was under way when the pause began does not
-- prolong it; only the probe's failure does. wait_s: what the API asked for, else the back-off of this process.
WITH before AS (
    SELECT b.*, clock_timestamp() AS at FROM api_budgets AS b
    WHERE connector = %(connector)s AND account = %(account)s FOR UPDATE
)
UPDATE api_budgets AS b
SET paused_until = before.at + make_interval(secs => greatest(%(wait_s)s::float8,
        CASE WHEN %(is_told)s THEN 0 ELSE least(%(cap_s)s, %(base_s)s * 2 ^ least(before.failures, 30)) * (0.5 + 0.5 * %(jitter)s) END)),
    pause_reason = %(reason)s, pause_message = %(message)s, paused_at = coalesce(before.paused_at, before.at),
    failures = before.failures + 1,
    remaining = CASE WHEN %(reason)s = 'throttled' THEN 0 ELSE before.remaining END,
    updated_at = before.at
FROM before
WHERE b.connector = before.connector AND b.account = before.account
  AND (%(is_probe)s OR before.paused_until IS NULL)
RETURNING extract(epoch FROM b.paused_until - before.at)::float8 AS for_s;

-- name: budgets
SELECT connector, account, call_limit,
       CASE WHEN resets_at <= now() THEN call_limit ELSE greatest(remaining, 0) END AS remaining,
       paused_until IS NOT NULL AS is_paused, pause_reason, pause_message, paused_at,
       greatest(extract(epoch FROM paused_until - now()), 0)::float8 AS probe_in_s
FROM api_budgets ORDER BY connector, account;
