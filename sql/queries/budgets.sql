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
-- pause one probe: it moves paused_until on by probe_s, so that everybody else waits for what it finds. A window that the
-- API called spent ends with its pause, also when a person ends that by moving paused_until.
-- Whatever a hand wrote into the row, calls go on: infinite times and windows are read as the nearest that is legal.
-- yields: uploads go first. A quarter of each window is left to them, and while orders wait three quarters. The first quarter
-- is for who yields: uploads leave what is left of it for a twelfth of a window (5 s) after each time that it asked, as they
-- would spend a window in less than the second after which it asks again (1 to 3 calls of 40 were left, measured). So a backlog
-- of either kind slows the other down and stops neither.
-- The row lock makes takers queue for microseconds; not flushed, because a lost reservation is a call not counted twice.
WITH account AS (
    SELECT b.*, clock_timestamp() AS at, make_interval(secs => least(greatest(window_s, 0), 3600)) AS span
    FROM api_budgets AS b WHERE connector = %(connector)s AND account = %(account)s FOR UPDATE
), verdict AS (
    SELECT account.*, paused_until IS NOT NULL AS is_paused,
           -- nothing legal lasts two hours: a value beyond came from a hand or from a wrong clock
           paused_until > at AND paused_until < at + interval '2 hours' AS must_wait,
           is_over AS rolled_over,
           NOT is_over AND (remaining <= reserve OR has_had_share) AS is_spent
    FROM (SELECT account.*,
                 CASE WHEN %(yields)s OR call_limit = 2147483647 THEN 0
                      WHEN sync_asked_at > at - span / 12 AND sync_asked_at <= at THEN greatest(call_limit / 4 - greatest(sync_calls, 0), 0)
                      ELSE 0 END AS reserve,
                 %(yields)s AND call_limit <> 2147483647 AND sync_calls >= greatest(call_limit / 4, 1)
                         AND (remaining <= call_limit / 4
                              OR EXISTS (SELECT FROM orders_inbox AS q WHERE q.status = 'Pending' AND q.scheduled_at <= account.at)) AS has_had_share,
                 NOT (resets_at > at AND resets_at < at + interval '2 hours')
                         OR coalesce(pause_reason = 'throttled', false) AS is_over FROM account) AS account
), taken AS (
    UPDATE api_budgets AS b
    SET remaining = CASE WHEN v.rolled_over THEN b.call_limit ELSE least(b.remaining, b.call_limit) END - 1,
        sync_calls = CASE WHEN v.rolled_over THEN 0 ELSE b.sync_calls END + %(yields)s::integer,
        sync_asked_at = CASE WHEN %(yields)s THEN v.at ELSE b.sync_asked_at END,
        rate_window = b.rate_window + v.rolled_over::integer,
        resets_at = CASE WHEN v.rolled_over THEN v.at + v.span ELSE b.resets_at END,
        paused_until = CASE WHEN v.is_paused THEN v.at + make_interval(secs => %(probe_s)s) END,
        updated_at = v.at
    FROM verdict AS v
    WHERE b.connector = v.connector AND b.account = v.account AND NOT coalesce(v.must_wait, false) AND NOT v.is_spent
    RETURNING b.rate_window
), asked AS (
    UPDATE api_budgets AS b SET sync_asked_at = v.at
    FROM verdict AS v
    WHERE b.connector = v.connector AND b.account = v.account AND %(yields)s AND NOT coalesce(v.must_wait, false) AND v.is_spent
)
SELECT taken.rate_window IS NOT NULL AS granted, taken.rate_window, v.is_paused AS is_probe,
       greatest(extract(epoch FROM CASE WHEN v.must_wait THEN v.paused_until WHEN v.is_spent THEN v.resets_at END - v.at), 0)::float8 AS wait_s,
       CASE WHEN v.must_wait THEN coalesce(v.pause_reason, 'by hand') ELSE 'budget' END AS reason,
       set_config('synchronous_commit', 'off', true)
FROM verdict AS v LEFT JOIN taken ON true;

-- name: give_back_permit
-- The call was not made: the window gets it back, and a probe that was not sent leaves the probe to the next one.
UPDATE api_budgets
SET remaining = CASE WHEN rate_window = %(rate_window)s THEN least(remaining + 1, call_limit) ELSE remaining END,
    sync_calls = CASE WHEN rate_window = %(rate_window)s AND %(yields)s THEN greatest(sync_calls - 1, 0) ELSE sync_calls END,
    paused_until = CASE WHEN %(is_probe)s AND paused_until IS NOT NULL THEN clock_timestamp() ELSE paused_until END
WHERE connector = %(connector)s AND account = %(account)s
RETURNING set_config('synchronous_commit', 'off', true);

-- name: report_ok
-- The API answered. Its headers correct the window they belong to: never upwards within a window, because calls of
-- others are still on their way. Our window ends when theirs does: a later end means that theirs began during ours, and
-- stretches ours without filling it up (else two of ours lie in one of theirs: 46 calls of 40, measured); if it is later
-- by half a window, which no slow reply explains, theirs is adopted. margin_s covers the header's whole seconds.
-- A call that was taken from our former window and that the API counts in this one (straddles) is taken from this one
-- too: without that, each adopted window was exceeded by the calls that were under way (4 of 40, measured).
-- Only the probe ends a pause: a call that was under way when it began says nothing of how things are now.
WITH before AS (
    SELECT b.*, clock_timestamp() AS at,
           clock_timestamp() + make_interval(secs => %(reset_s)s::float8 + %(margin_s)s) AS seen_reset,
           make_interval(secs => least(greatest(window_s, 0), 3600) / 2) AS half
    FROM api_budgets AS b WHERE connector = %(connector)s AND account = %(account)s FOR UPDATE
)
UPDATE api_budgets AS b
SET rate_window = b.rate_window + (before.rolled AND before.mine)::integer,
    sync_calls = CASE WHEN before.rolled AND before.mine THEN 0 ELSE b.sync_calls END,
    remaining = CASE
        WHEN %(remaining)s::integer IS NULL THEN b.remaining
        WHEN before.mine AND before.rolled THEN %(remaining)s::integer
        WHEN before.mine THEN least(b.remaining, %(remaining)s::integer)
        WHEN before.straddles THEN least(b.remaining - 1, %(remaining)s::integer)
        ELSE b.remaining END,
    resets_at = CASE
        WHEN before.seen_reset IS NULL OR NOT before.mine THEN b.resets_at
        ELSE before.seen_reset END,
    paused_until = CASE WHEN before.is_late THEN b.paused_until END,
    pause_reason = CASE WHEN before.is_late THEN b.pause_reason END,
    pause_message = CASE WHEN before.is_late THEN b.pause_message END,
    paused_at = CASE WHEN before.is_late THEN b.paused_at END,
    failures = CASE WHEN before.is_late THEN b.failures ELSE 0 END,
    updated_at = before.at
FROM (SELECT before.*, rate_window = %(rate_window)s AS mine, paused_until IS NOT NULL AND NOT %(is_probe)s AS is_late,
             rate_window = %(rate_window)s + 1 AND seen_reset BETWEEN resets_at - half AND resets_at + half AS straddles,
             coalesce(seen_reset > resets_at + half, false) AS rolled FROM before) AS before
WHERE b.connector = before.connector AND b.account = before.account
RETURNING b.remaining, before.paused_until IS NOT NULL AND NOT before.is_late AS is_resumed, set_config('synchronous_commit', 'off', true);

-- name: report_unavailable
-- Pause the account for all replicas. A late failure of a call that was under way when the pause began does not
-- prolong it; only the probe's failure does. wait_s: what the API asked for, else the back-off of this process.
-- Throttled: the window is spent, by others too; take_permit begins the next one when the pause ends.
WITH before AS (
    SELECT b.*, clock_timestamp() AS at FROM api_budgets AS b
    WHERE connector = %(connector)s AND account = %(account)s FOR UPDATE
), pause AS (
    SELECT before.*, at + make_interval(secs => greatest(%(wait_s)s::float8,
        CASE WHEN %(is_told)s THEN 0 ELSE least(%(cap_s)s, %(base_s)s * 2 ^ least(failures, 30)) * (0.5 + 0.5 * %(jitter)s) END)) AS ends_at
    FROM before
)
UPDATE api_budgets AS b
SET paused_until = pause.ends_at,
    pause_reason = %(reason)s, pause_message = %(message)s, paused_at = coalesce(pause.paused_at, pause.at),
    failures = pause.failures + 1,
    remaining = CASE WHEN %(reason)s = 'throttled' THEN 0 ELSE pause.remaining END,
    updated_at = pause.at
FROM pause
WHERE b.connector = pause.connector AND b.account = pause.account
  AND (%(is_probe)s OR pause.paused_until IS NULL)
RETURNING extract(epoch FROM b.paused_until - pause.at)::float8 AS for_s;

-- name: budgets
SELECT connector, account, call_limit, call_limit < 2147483647 AS is_limited,
       CASE WHEN resets_at <= now() THEN call_limit ELSE greatest(remaining, 0) END AS remaining,
       paused_until IS NOT NULL AS is_paused,
       CASE WHEN paused_until IS NOT NULL THEN coalesce(pause_reason, 'by hand') END AS pause_reason,
       CASE WHEN paused_until IS NOT NULL THEN coalesce(pause_message, 'paused_until was set by hand') END AS pause_message,
       CASE WHEN isfinite(paused_at) THEN paused_at END AS paused_at,
       CASE WHEN paused_until > now() AND paused_until < now() + interval '2 hours'
            THEN extract(epoch FROM paused_until - now()) ELSE 0 END::float8 AS probe_in_s
FROM api_budgets ORDER BY connector, account;
