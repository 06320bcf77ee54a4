-- The synchronisation with ShipStation: its runs, what it stores, how far it has got.

-- name: begin_run
-- Note the start of a run that we hold, and the time by the database's clock. No row: the claim is gone.
UPDATE sync_runs SET started_at = coalesce(started_at, clock_timestamp())
WHERE id = %(run_id)s AND claim_id = %(claim_id)s AND status = 'Processing'
RETURNING clock_timestamp() AS now, started_at;

-- name: marks
-- A watermark that a hand wrote: '-infinity' reads all there is, from before their time on; one of the future tells nothing.
SELECT workflow, cursor,
       CASE WHEN watermark < now() + interval '10 minutes' THEN least(greatest(watermark, '2000-01-01Z'), now()) END AS watermark FROM polling_state WHERE account = %(account)s AND workflow = ANY (%(workflows)s::text[]);

-- name: hold_run
-- The fence of whatever a run writes: it still holds its claim, and goes on holding it until this transaction ends.
SELECT FROM sync_runs WHERE id = %(run_id)s AND claim_id = %(claim_id)s AND status = 'Processing' FOR NO KEY UPDATE;

-- name: store_orders
-- Upsert one page of orders, and find the row of the inbox that each belongs to: by its key; as a part of a split order by
-- its parent's; a row from before our time, without a key, by its number where one row and one order have it. A link that is known stays
-- while its row is there. What is as it was is not written. LIMIT 1 and no ORDER BY: with one the planner walks the primary key.
WITH told AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r (
        order_id bigint, order_key text, order_number text, order_status text, parent_id bigint, store_id bigint,
        order_total numeric, created_there_at timestamptz, modified_there_at timestamptz)
), alone AS MATERIALIZED (
    SELECT order_number FROM told WHERE parent_id IS NULL GROUP BY order_number HAVING count(*) = 1
), linked AS MATERIALIZED (
    SELECT told.*, coalesce(
        (SELECT q.id FROM shipstation_orders AS known JOIN orders_inbox AS q ON q.id = known.inbox_id
         WHERE known.account = %(account)s AND known.order_id = told.order_id),
        (SELECT q.id FROM orders_inbox AS q WHERE q.order_key = told.order_key LIMIT 1),
        (SELECT q.id FROM shipstation_orders AS parent JOIN orders_inbox AS q ON q.id = parent.inbox_id
         WHERE parent.account = %(account)s AND parent.order_id = told.parent_id),
        (SELECT CASE WHEN count(*) = 1 THEN (array_agg(q.id))[1] END FROM orders_inbox AS q
         WHERE q.order_key IS NULL AND q.order_number = told.order_number
           AND coalesce(q.shipstation_order_id, told.order_id::text) = told.order_id::text
           AND (q.shipstation_order_id IS NOT NULL OR told.order_number IN (SELECT order_number FROM alone)
                AND NOT EXISTS (SELECT FROM shipstation_orders AS other WHERE other.account = %(account)s AND other.parent_id IS NULL
                                AND other.order_number = told.order_number AND other.order_id <> told.order_id)))) AS inbox_id
    FROM told
)
INSERT INTO shipstation_orders AS s (
    account, order_id, order_key, order_number, order_status, parent_id, store_id, order_total, created_there_at, modified_there_at, inbox_id)
SELECT %(account)s, order_id, order_key, order_number, order_status, parent_id, store_id, order_total, created_there_at, modified_there_at, inbox_id
FROM linked
ON CONFLICT (account, order_id) DO UPDATE
SET order_key = excluded.order_key, order_number = excluded.order_number, order_status = excluded.order_status,
    parent_id = excluded.parent_id, store_id = excluded.store_id, order_total = excluded.order_total,
    created_there_at = excluded.created_there_at, modified_there_at = excluded.modified_there_at,
    inbox_id = excluded.inbox_id, updated_at = now()
WHERE (s.order_key, s.order_number, s.order_status, s.parent_id, s.store_id, s.order_total, s.created_there_at, s.modified_there_at, s.inbox_id)
      IS DISTINCT FROM (excluded.order_key, excluded.order_number, excluded.order_status, excluded.parent_id, excluded.store_id,
                        excluded.order_total, excluded.created_there_at, excluded.modified_there_at, excluded.inbox_id)
RETURNING s.order_id, s.inbox_id IS NULL AS is_unknown, s.xmax = 0 AS is_new;

-- name: link_parts
-- The parts of a split order that came before or together with their parent.
UPDATE shipstation_orders AS part
SET inbox_id = parent.inbox_id, updated_at = now()
FROM shipstation_orders AS parent
WHERE part.account = %(account)s AND parent.account = part.account AND parent.order_id = part.parent_id
  AND part.inbox_id IS NULL AND parent.inbox_id IS NOT NULL
  AND (part.order_id = ANY (%(order_ids)s::bigint[]) OR parent.order_id = ANY (%(order_ids)s::bigint[]))
RETURNING part.order_id;

-- name: suspect_parcels
-- An order that is not shipped any more: its fulfillments may have been voided, which no list tells.
UPDATE shipstation_parcels AS p
SET must_check = true
FROM shipstation_orders AS s
WHERE s.account = %(account)s AND s.order_id = ANY (%(order_ids)s::bigint[]) AND s.order_status <> 'shipped'
  AND p.account = s.account AND p.order_id = s.order_id AND p.kind = 'fulfillment' AND NOT p.is_void AND NOT p.must_check;

-- name: store_parcels
-- Upsert one page of shipments or fulfillments; what is as it was is not written.
INSERT INTO shipstation_parcels AS p (
    account, kind, parcel_id, order_id, order_number, tracking_number, carrier_code, service_code, cost, shipped_at, created_there_at,
    voided_at, is_void, is_return)
SELECT %(account)s, kind, parcel_id, order_id, order_number, tracking_number, carrier_code, service_code, cost, shipped_at, created_there_at,
       voided_at, is_void, is_return
FROM jsonb_to_recordset(%(rows)s::jsonb) AS r (
    kind text, parcel_id bigint, order_id bigint, order_number text, tracking_number text, carrier_code text, service_code text,
    cost numeric, shipped_at timestamptz, created_there_at timestamptz, voided_at timestamptz, is_void boolean, is_return boolean)
ON CONFLICT (account, kind, parcel_id) DO UPDATE
SET order_id = excluded.order_id, order_number = excluded.order_number, tracking_number = excluded.tracking_number,
    carrier_code = excluded.carrier_code, service_code = excluded.service_code, cost = excluded.cost, shipped_at = excluded.shipped_at,
    created_there_at = excluded.created_there_at, voided_at = excluded.voided_at, is_void = excluded.is_void,
    is_return = excluded.is_return, updated_at = now()
WHERE (p.order_id, p.order_number, p.tracking_number, p.carrier_code, p.service_code, p.cost, p.shipped_at, p.created_there_at,
       p.voided_at, p.is_void, p.is_return)
      IS DISTINCT FROM (excluded.order_id, excluded.order_number, excluded.tracking_number, excluded.carrier_code, excluded.service_code,
                        excluded.cost, excluded.shipped_at, excluded.created_there_at, excluded.voided_at, excluded.is_void, excluded.is_return)
RETURNING p.order_id, p.parcel_id;

-- name: checked_parcels
-- Their order was asked for them: whatever the answer was, it is stored.
UPDATE shipstation_parcels SET must_check = false
WHERE account = %(account)s AND order_id = %(order_id)s AND must_check;

-- name: suspects
SELECT DISTINCT order_id FROM shipstation_parcels WHERE account = %(account)s AND must_check ORDER BY order_id LIMIT %(most)s;

-- name: fold
-- Work out anew what the inbox says of these orders. Of a split order, the part that still needs most: it is shipped
-- when every part is, or is cancelled; a word of theirs that nobody knows stands between. An order that was deleted there and
-- made anew under its key counts no more, nor do its parts: no list tells of a deletion. The parcel is the newest one,
-- of one kind by its id (in the hour that comes twice their time of creation is not in order), that is neither void nor a return; of an order without any that we have read, what is there stays. None of these columns is content, so nothing is uploaded because of it.
-- A row that somebody keeps locked holds up nobody else's: it is left for the end of this run, or of a later one.
-- is_first: this run, which began at `begun`, has not written the row before.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT s.inbox_id FROM shipstation_orders AS s
    WHERE s.account = %(account)s AND s.order_id = ANY (%(order_ids)s::bigint[]) AND s.inbox_id IS NOT NULL
), free AS MATERIALIZED (
    SELECT q.id, q.updated_at FROM orders_inbox AS q WHERE q.id IN (SELECT inbox_id FROM touched) FOR NO KEY UPDATE SKIP LOCKED
), noted AS (
    UPDATE shipstation_orders AS s
    SET must_fold = NOT s.must_fold
    FROM touched LEFT JOIN free ON free.id = touched.inbox_id
    WHERE s.inbox_id = touched.inbox_id AND s.account = %(account)s
      AND s.must_fold <> (free.id IS NULL AND EXISTS (SELECT FROM orders_inbox AS there WHERE there.id = touched.inbox_id))
), told AS MATERIALIZED (
    SELECT touched.inbox_id, free.updated_at AS before, standing.order_status, standing.order_ids[1]::text AS order_id,
           parcel.tracking_number, parcel.carrier_code, parcel.shipped_at,
           EXISTS (SELECT FROM shipstation_orders AS s JOIN shipstation_parcels AS p ON p.account = s.account AND p.order_id = s.order_id
                   WHERE s.inbox_id = touched.inbox_id AND s.account = %(account)s AND NOT p.is_return) AS is_known
    FROM touched JOIN free ON free.id = touched.inbox_id
    CROSS JOIN LATERAL (
        SELECT array_agg(order_id ORDER BY urgency, order_id) AS order_ids, (array_agg(order_status ORDER BY urgency, order_id))[1] AS order_status
        FROM (
            SELECT judged.*, bool_or(is_former) OVER (PARTITION BY root_id) AS is_gone,
                   CASE order_status WHEN 'awaiting_payment' THEN 1 WHEN 'on_hold' THEN 2 WHEN 'awaiting_shipment' THEN 3
                                     WHEN 'pending_fulfillment' THEN 4 WHEN 'shipped' THEN 6 WHEN 'cancelled' THEN 7 ELSE 5 END AS urgency
            FROM (
                SELECT s.order_id, s.order_status, coalesce(s.parent_id, s.order_id) AS root_id,
                       s.parent_id IS NULL AND s.order_key IS NOT NULL
                           AND s.order_id < max(s.order_id) FILTER (WHERE s.parent_id IS NULL) OVER (PARTITION BY s.order_key) AS is_former
                FROM shipstation_orders AS s WHERE s.inbox_id = touched.inbox_id AND s.account = %(account)s
            ) AS judged
        ) AS judged
        WHERE NOT is_gone
    ) AS standing
    LEFT JOIN LATERAL (
        SELECT newest.tracking_number, newest.carrier_code, newest.shipped_at FROM (
            SELECT DISTINCT ON (p.kind) p.parcel_id, p.created_there_at, p.tracking_number, p.carrier_code, p.shipped_at
            FROM shipstation_parcels AS p
            WHERE p.account = %(account)s AND p.order_id = ANY (standing.order_ids) AND NOT p.is_void AND NOT p.is_return
            ORDER BY p.kind, p.parcel_id DESC
        ) AS newest
        ORDER BY newest.created_there_at DESC NULLS LAST, newest.parcel_id DESC
        LIMIT 1
    ) AS parcel ON true
    WHERE standing.order_ids IS NOT NULL
)
UPDATE orders_inbox AS q
SET fulfillment_status = told.order_status,
    tracking_number = CASE WHEN told.is_known THEN told.tracking_number ELSE q.tracking_number END,
    carrier_code = CASE WHEN told.is_known THEN told.carrier_code ELSE q.carrier_code END,
    shipped_at = CASE WHEN told.is_known THEN told.shipped_at ELSE q.shipped_at END, shipstation_order_id = coalesce(q.shipstation_order_id, told.order_id), updated_at = now()
FROM told
WHERE q.id = told.inbox_id
  AND ((q.fulfillment_status, coalesce(q.shipstation_order_id, told.order_id)) IS DISTINCT FROM (told.order_status, q.shipstation_order_id)
       OR told.is_known AND (q.tracking_number, q.carrier_code, q.shipped_at)
                            IS DISTINCT FROM (told.tracking_number, told.carrier_code, told.shipped_at))
RETURNING q.id, coalesce(told.before < %(begun)s::timestamptz, true) AS is_first;

-- name: left
SELECT order_id FROM shipstation_orders WHERE account = %(account)s AND must_fold ORDER BY order_id LIMIT 1000;

-- name: advance
-- Never back, and never into the future, where a hand may have set it. No mark (least() would pass over that): only the place
-- where an unfinished pass goes on.
INSERT INTO polling_state AS state (workflow, account, watermark, cursor)
VALUES (%(workflow)s, %(account)s, CASE WHEN %(mark)s::timestamptz IS NOT NULL THEN least(%(mark)s::timestamptz, now()) END, %(cursor)s::jsonb)
ON CONFLICT (workflow, account) DO UPDATE
SET watermark = greatest(CASE WHEN state.watermark < now() + interval '10 minutes' THEN least(state.watermark, now()) END, excluded.watermark),
    cursor = excluded.cursor, updated_at = now();

-- name: quarantine
-- Of two records that lie before the same other one, the query must go on finding both: the earlier start of each filter counts,
-- as text, which is how the API's clock compares; a filter that one of them has no start for begins with the list.
INSERT INTO sync_quarantine AS q (account, list, place, query, row, error)
SELECT %(account)s, %(list)s, r.place, r.query, r.row, r.error
FROM jsonb_to_recordset(%(entries)s::jsonb) AS r (place text, query jsonb, row jsonb, error text)
ON CONFLICT (connector, account, list, place) DO UPDATE
SET query = (
        SELECT jsonb_object_agg(key, CASE WHEN right(key, 5) = 'Start' AND q.resolved_at IS NULL THEN least(q.query ->> key, value) ELSE value END)
        FROM jsonb_each_text(excluded.query)
        WHERE right(key, 5) <> 'Start' OR q.resolved_at IS NOT NULL OR coalesce(q.query ? key, true)
    ),
    row = excluded.row, error = excluded.error, last_seen_at = now(),
    attempts = CASE WHEN q.resolved_at IS NULL THEN q.attempts ELSE 1 END,
    retry_at = CASE WHEN q.resolved_at IS NULL THEN q.retry_at ELSE now() + interval '5 minutes' END, resolved_at = NULL
RETURNING q.xmax = 0 AS is_new;

-- name: quarantine_due
-- Entries that lie in one list are read together: ids and places, in one order.
WITH due AS MATERIALIZED (
    SELECT q.list, q.query, min(q.retry_at) AS retry_at FROM sync_quarantine AS q
    WHERE q.connector = 'shipstation' AND q.account = %(account)s AND q.resolved_at IS NULL AND q.query IS NOT NULL AND q.retry_at <= now()
    GROUP BY q.list, q.query ORDER BY min(q.retry_at) LIMIT %(most)s
)
SELECT due.list, due.query, array_agg(q.id ORDER BY q.id) AS ids, array_agg(q.place ORDER BY q.id) AS places
FROM due JOIN sync_quarantine AS q ON q.list = due.list AND q.query = due.query
WHERE q.connector = 'shipstation' AND q.account = %(account)s AND q.resolved_at IS NULL
GROUP BY due.list, due.query, due.retry_at ORDER BY due.retry_at;

-- name: quarantine_resolved
UPDATE sync_quarantine SET resolved_at = now() WHERE id = ANY (%(ids)s::bigint[]);

-- name: quarantine_again
-- 5, 10, 20 … minutes, at most 6 hours.
UPDATE sync_quarantine
SET attempts = attempts + 1, retry_at = now() + least(interval '5 minutes' * 2 ^ least(attempts, 10), interval '6 hours')
WHERE id = ANY (%(ids)s::bigint[]);

-- name: write_stats
UPDATE sync_runs SET stats = %(stats)s::jsonb WHERE id = %(run_id)s;

-- name: fail_strays
-- Our claims write Processing and claim_id together: a row without one is a hand's, nobody works on it, and it would hold up
-- its account for ever.
UPDATE sync_runs
SET status = 'Failed', finished_at = now(), updated_at = now(),
    last_error = 'Processing was written by hand: nobody works on this run. UPDATE sync_runs SET status = ''Pending'' asks for it.'
WHERE connector = %(connector)s AND account = %(account)s AND status = 'Processing' AND claim_id IS NULL
RETURNING id;

-- name: schedule_run
-- Insert the account's next run when the last one, whoever asked for it, started `interval_s` ago; on whichever replica
-- comes first. One that was claimed a moment ago has no start yet, and counts. A waiting webhook run becomes this one, and so
-- does one that somebody planned for later (a retry waits five minutes at most): two cannot wait, and no sync would be done until
-- then. Once a day it looks further back. age_s: since that start, null = never. planned_for: when it would have run.
WITH later AS (
    SELECT id, scheduled_at::text AS planned_for FROM sync_runs
    WHERE connector = %(connector)s AND account = %(account)s AND status = 'Pending' AND scheduled_at > now() + interval '10 minutes'
), last AS (
    SELECT extract(epoch FROM now() - max(started_at))::float8 AS age_s FROM sync_runs
    WHERE connector = %(connector)s AND account = %(account)s AND reason <> 'webhook'
      AND started_at < now() + interval '1 minute'  -- later ones are of a clock that has gone back since
      AND params -> 'dry_run' IS DISTINCT FROM 'true'
), wide AS (
    SELECT EXISTS (SELECT FROM sync_runs WHERE connector = %(connector)s AND account = %(account)s
                   AND started_at > now() - interval '1 day' AND started_at < now() + interval '1 minute' AND status <> 'Failed' AND params -> 'dry_run' IS DISTINCT FROM 'true'
                   AND params -> 'lookback_minutes' >= to_jsonb(%(wide_minutes)s::integer)) AS is_done
), due AS (
    INSERT INTO sync_runs AS run (connector, account, reason, params)
    SELECT %(connector)s, %(account)s, 'schedule',
           CASE WHEN wide.is_done OR last.age_s IS NULL THEN jsonb_build_object() ELSE jsonb_build_object('lookback_minutes', %(wide_minutes)s::integer) END
    FROM last, wide WHERE (last.age_s IS NULL OR last.age_s >= %(interval_s)s)
      AND NOT EXISTS (SELECT FROM sync_runs WHERE connector = %(connector)s AND account = %(account)s AND reason <> 'webhook'
                      AND started_at IS NULL AND status IN ('Pending', 'Processing') AND id NOT IN (SELECT id FROM later))
    ON CONFLICT (connector, account) WHERE status = 'Pending' DO UPDATE
    SET reason = least(run.reason, excluded.reason), params = listener_merge_sync_params(run.params, excluded.params),
        scheduled_at = least(run.scheduled_at, excluded.scheduled_at)
    WHERE run.reason = 'webhook' OR run.id IN (SELECT id FROM later)
    RETURNING id
)
SELECT last.age_s, (SELECT id FROM due) AS run_id, (SELECT planned_for FROM later JOIN due USING (id)) AS planned_for FROM last;

-- name: request_run
-- A person's run: nothing when one is waiting or working already. claimed_at: see stand_by.
INSERT INTO sync_runs (connector, account, reason, params, claimed_at)
SELECT %(connector)s, %(account)s, 'manual', %(params)s::jsonb, now()
WHERE NOT EXISTS (SELECT FROM sync_runs WHERE connector = %(connector)s AND account = %(account)s AND status IN ('Pending', 'Processing'))
ON CONFLICT (connector, account) WHERE status = 'Pending' DO NOTHING
RETURNING id;

-- name: join_run
-- A person's run goes along with the one that waits, at once: one that was begun and sent back (a pause, a stop, a death), or
-- that nobody took, as a command did not that was killed or switched off; a service takes one within milliseconds. What somebody
-- planned for later stays, and a dry run joins none, which may not become a real one. Nor does a second command one that
-- another stands by: both would tell of the same run as theirs. Who waited for the other's lock has the older now().
UPDATE sync_runs
SET reason = 'manual', params = listener_merge_sync_params(params, %(params)s::jsonb), scheduled_at = least(scheduled_at, now()), claimed_at = now()
WHERE connector = %(connector)s AND account = %(account)s AND status = 'Pending' AND %(params)s::jsonb -> 'dry_run' IS DISTINCT FROM 'true'
  AND CASE WHEN started_at IS NOT NULL OR attempts > 0 THEN scheduled_at < now() + interval '10 minutes'
           ELSE scheduled_at < now() - interval '15 seconds' END
  AND (claimed_at BETWEEN now() - interval '15 seconds' AND now() + interval '15 seconds') IS NOT TRUE
  AND NOT EXISTS (SELECT FROM sync_runs WHERE connector = %(connector)s AND account = %(account)s AND status = 'Processing')
RETURNING id;

-- name: stand_by
-- A command waits for its run, or leaves it. Only a command writes claimed_at to a waiting run, and again every five seconds; the
-- claim and whatever ends it write over that.
UPDATE sync_runs SET claimed_at = CASE WHEN %(stays)s THEN now() END
WHERE id = %(run_id)s AND status = 'Pending'
  AND (NOT %(stays)s OR (claimed_at BETWEEN now() - interval '5 seconds' AND now() + interval '5 seconds') IS NOT TRUE);

-- name: open_run
-- What keeps a person's run away: the one that works, or else the one that waits. is_new: whoever inserted it may be about to
-- take it, or a command stands by it.
SELECT id, status, reason, scheduled_at::text AS scheduled_at, started_at::text AS started_at, scheduled_at > now() AS is_later,
       status = 'Pending' AND (claimed_at BETWEEN now() - interval '15 seconds' AND now() + interval '15 seconds' OR started_at IS NULL AND attempts = 0
           AND scheduled_at BETWEEN now() - interval '15 seconds' AND now()) IS TRUE AS is_new
FROM sync_runs
WHERE connector = %(connector)s AND account = %(account)s AND status IN ('Pending', 'Processing') ORDER BY status DESC LIMIT 1;

-- name: read_run
SELECT id, status, reason, params, stats, last_error, created_at, started_at, finished_at, attempts FROM sync_runs WHERE id = %(run_id)s;

-- name: monitor
-- Whether syncs run, for a person: the newest runs, how far each list has been read, and what lies aside. since: of the sums.
-- What a dry run would have changed is in no sum: the real one after it counts that. A figure that a hand wrote and that is none
-- is in no sum either.
WITH counted AS (
    SELECT coalesce((SELECT watermark FROM polling_state WHERE account = %(account)s AND workflow = 'shipstation statistics'), '-infinity') AS since
), newest AS (
    SELECT id, status, reason, stats, last_error, created_at, started_at, finished_at FROM sync_runs
    WHERE connector = %(connector)s AND account = %(account)s AND started_at IS NOT NULL ORDER BY started_at DESC LIMIT 1
), sums AS (
    SELECT count(*) AS runs, count(*) FILTER (WHERE status = 'Failed') AS failed, count(*) FILTER (WHERE started_at > now() - interval '1 hour') AS runs_last_hour,
           sum(figure.calls) FILTER (WHERE started_at > now() - interval '1 hour')::bigint AS calls_last_hour,
           sum(figure.calls)::bigint AS calls, sum(figure.read)::bigint AS read,
           sum(figure.changed) FILTER (WHERE stats -> 'dry_run' IS DISTINCT FROM 'true')::bigint AS changed,
           sum(figure.rows) FILTER (WHERE stats -> 'dry_run' IS DISTINCT FROM 'true')::bigint AS rows
    FROM sync_runs CROSS JOIN counted
    CROSS JOIN LATERAL (
        SELECT max(n::numeric) FILTER (WHERE name = 'calls') AS calls, max(n::numeric) FILTER (WHERE name = 'read') AS read,
               max(n::numeric) FILTER (WHERE name = 'changed') AS changed, max(n::numeric) FILTER (WHERE name = 'rows') AS rows
        FROM unnest(ARRAY['calls', 'read', 'changed', 'rows']) AS name
        CROSS JOIN LATERAL jsonb_path_query_first(stats -> name, '$ ? (@.type() == "number" && @ >= 0 && @ <= 1000000000000)') AS n) AS figure
    WHERE connector = %(connector)s AND account = %(account)s AND started_at >= counted.since
)
SELECT nullif((SELECT since FROM counted), '-infinity') AS since,
       (SELECT to_jsonb(newest) FROM newest) AS last_run,
       (SELECT count(*) FROM sync_runs WHERE connector = %(connector)s AND account = %(account)s AND status = 'Pending') AS pending,
       (SELECT count(*) FROM sync_runs WHERE connector = %(connector)s AND account = %(account)s AND status = 'Processing') AS processing,
       (SELECT jsonb_build_object('id', id, 'reason', reason, 'scheduled_at', scheduled_at, 'last_error', last_error) FROM sync_runs
        WHERE connector = %(connector)s AND account = %(account)s AND status = 'Pending') AS waiting_run,
       (SELECT jsonb_build_object('id', id, 'reason', reason, 'started_at', started_at, 'claimed_by', claimed_by) FROM sync_runs
        WHERE connector = %(connector)s AND account = %(account)s AND status = 'Processing') AS working_run,
       (SELECT coalesce(jsonb_object_agg(replace(workflow, 'shipstation ', ''), watermark), jsonb_build_object()) FROM polling_state
        WHERE account = %(account)s AND workflow LIKE 'shipstation %%' AND workflow <> 'shipstation statistics') AS watermarks,
       (SELECT count(*) FROM shipstation_unknown_orders WHERE account = %(account)s) AS unknown_orders,
       (SELECT count(*) FROM sync_quarantine WHERE connector = %(connector)s AND account = %(account)s AND resolved_at IS NULL) AS quarantined,
       sums.*
FROM sums;

-- name: reset_statistics
INSERT INTO polling_state (workflow, account, watermark) VALUES ('shipstation statistics', %(account)s, now())
ON CONFLICT (workflow, account) DO UPDATE SET watermark = now(), updated_at = now();

-- name: receive_webhook
-- Keep a webhook as it came, and start a run that reads what it names. The same one again within ten minutes is the same
-- delivery. A run that waits already takes the address along; with more than 200 of them it reads everything that changed.
WITH before AS (
    SELECT last_received_at FROM webhook_events
    WHERE connector = %(connector)s AND account = %(account)s AND dedupe_key = %(dedupe_key)s
), event AS (
    INSERT INTO webhook_events AS e (connector, account, dedupe_key, body)
    VALUES (%(connector)s, %(account)s, %(dedupe_key)s, %(body)s)
    ON CONFLICT (connector, account, dedupe_key) DO UPDATE SET deliveries = e.deliveries + 1, last_received_at = now()
    RETURNING e.id
), run AS (
    INSERT INTO sync_runs AS run (connector, account, reason, params)
    SELECT %(connector)s, %(account)s, 'webhook', jsonb_build_object('urls', jsonb_build_array(%(url)s::text))
    WHERE NOT EXISTS (SELECT FROM before WHERE last_received_at > now() - interval '10 minutes')
    ON CONFLICT (connector, account) WHERE status = 'Pending' DO UPDATE
    SET params = CASE WHEN jsonb_path_exists(run.params, '$.urls[199]') THEN run.params - 'urls'
                      ELSE listener_merge_sync_params(run.params, excluded.params) END,
        reason = CASE WHEN jsonb_path_exists(run.params, '$.urls[199]') THEN least('schedule', run.reason) ELSE run.reason END,
        scheduled_at = least(run.scheduled_at, excluded.scheduled_at)
    RETURNING id
)
SELECT (SELECT id FROM event) AS event_id, (SELECT id FROM run) AS run_id;

-- name: clean
-- What ended and what came so long ago, a thousand rows of each at once, oldest first. deleted: rows.
WITH old_runs AS MATERIALIZED (
    SELECT id FROM sync_runs
    WHERE connector = %(connector)s AND account = %(account)s AND status IN ('Succeeded', 'Failed', 'Superseded')
      AND coalesce(finished_at, updated_at) < now() - make_interval(days => %(days)s)
    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
), old_events AS MATERIALIZED (
    SELECT id FROM webhook_events
    WHERE connector = %(connector)s AND account = %(account)s AND last_received_at < now() - make_interval(days => %(days)s)
    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
), runs AS (
    DELETE FROM sync_runs USING old_runs WHERE sync_runs.id = old_runs.id RETURNING 1
), events AS (
    DELETE FROM webhook_events USING old_events WHERE webhook_events.id = old_events.id RETURNING 1
)
SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM events) AS deleted;
