-- Which role needs what on the objects of this schema: the one list, which deploy/roles.sql grants, `listener doctor` compares
-- and the tests take apart. Every row of it is needed: without it a statement of the role is refused.
-- role: runtime = the service and the commands that work beside it, writer = programs that insert orders, reader = dashboards.
-- columns: null = the whole relation. relation: null = it is not there.
-- Neither the writer nor the reader sees what an order, a file, a webhook or a record of an API holds, nor the errors and reports
-- that quote it. A writer does not name a status, so what it inserts is Pending.
-- SELECT FOR UPDATE needs UPDATE; a sequence behind an identity column needs nothing, one behind a serial column does.
CREATE OR REPLACE FUNCTION listener_privileges()
RETURNS TABLE (role text, object text, relation regclass, kind text, privilege text, columns text[])
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $$
    WITH wanted (role, object, privileges, hidden, shown) AS (
        SELECT w.role, w.object, w.privileges, w.hidden, w.shown
        FROM (VALUES
            ('runtime', 'listener_migrations', '{SELECT}', NULL, NULL),
            ('runtime', 'listener_queues', '{SELECT}', NULL, NULL),
            ('runtime', 'orders_inbox', '{SELECT, INSERT, UPDATE}', NULL, NULL),
            ('runtime', 'import_files', '{SELECT, INSERT, UPDATE}', NULL, NULL),
            ('runtime', 'sync_runs', '{SELECT, INSERT, UPDATE, DELETE}', NULL, NULL),  -- DELETE: retention_days
            ('runtime', 'configuration_params', '{SELECT, INSERT, UPDATE, DELETE}', NULL, NULL),  -- `listener config`; DELETE: restore
            ('runtime', 'configuration_history', '{SELECT}', NULL, NULL),  -- written by a trigger, as the owner: nobody forges it
            ('runtime', 'polling_state', '{SELECT, INSERT, UPDATE}', NULL, NULL),
            ('runtime', 'polling_metrics', '{SELECT, INSERT, UPDATE, DELETE}', NULL, NULL),
            ('runtime', 'api_budgets', '{SELECT, INSERT, UPDATE}', NULL, NULL),
            ('runtime', 'shipstation_orders', '{SELECT, INSERT, UPDATE}', NULL, NULL),
            ('runtime', 'shipstation_parcels', '{SELECT, INSERT, UPDATE}', NULL, NULL),
            ('runtime', 'sync_quarantine', '{SELECT, INSERT, UPDATE}', NULL, NULL),
            ('runtime', 'webhook_events', '{SELECT, INSERT, UPDATE, DELETE}', NULL, NULL),
            ('writer', 'orders_inbox', '{INSERT}', NULL, '{source, order_number, payload, priority, scheduled_at}'),
            ('writer', 'orders_inbox', '{SELECT}', NULL, '{id, source, order_number, status, scheduled_at, attempts, created_at, finished_at,
                                                           uploaded_at, fulfillment_status, tracking_number, carrier_code, shipped_at}'),
            ('reader', 'listener_queues', '{SELECT}', NULL, NULL),
            ('reader', 'orders_inbox', '{SELECT}', '{payload, last_error}', NULL),
            ('reader', 'import_files', '{SELECT}', '{content, body, report, last_error}', NULL),
            ('reader', 'sync_runs', '{SELECT}', NULL, NULL),
            ('reader', 'configuration_params', '{SELECT}', NULL, NULL),
            ('reader', 'configuration_history', '{SELECT}', NULL, NULL),
            ('reader', 'polling_state', '{SELECT}', NULL, NULL),
            ('reader', 'polling_metrics', '{SELECT}', NULL, NULL),
            ('reader', 'polling_metrics_hourly', '{SELECT}', NULL, NULL),
            ('reader', 'polling_metrics_last_hour', '{SELECT}', NULL, NULL),
            ('reader', 'api_budgets', '{SELECT}', NULL, NULL),
            ('reader', 'shipstation_orders', '{SELECT}', NULL, NULL),
            ('reader', 'shipstation_unknown_orders', '{SELECT}', NULL, NULL),
            ('reader', 'shipstation_parcels', '{SELECT}', NULL, NULL),
            ('reader', 'sync_quarantine', '{SELECT}', '{row, query}', NULL),
            ('reader', 'webhook_events', '{SELECT}', '{body}', NULL)
        ) AS w (role, object, privileges, hidden, shown)
    ), found AS (
        SELECT w.role, w.object, to_regclass(format('%I.%I', current_schema(), w.object)) AS relation,
               w.privileges::text[] AS privileges, w.hidden::text[] AS hidden, w.shown::text[] AS shown
        FROM wanted AS w
        UNION ALL
        SELECT 'runtime', format('%I.%I', q.table_schema, q.table_name), to_regclass(format('%I.%I', q.table_schema, q.table_name)),
               '{SELECT, UPDATE}', NULL, NULL
        FROM listener_queues AS q
    )
    SELECT f.role, f.object, f.relation, 'table', p.privilege,
           CASE WHEN f.hidden IS NOT NULL THEN (
                    SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute AS a
                    WHERE a.attrelid = f.relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL (f.hidden))
                ELSE f.shown END
    FROM found AS f CROSS JOIN LATERAL unnest(f.privileges) AS p (privilege)
    UNION ALL
    SELECT DISTINCT f.role, s.relname::text, s.oid::regclass, 'sequence', 'USAGE', NULL::text[]
    FROM found AS f
    JOIN pg_depend AS d ON d.refobjid = f.relation AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_class'::regclass AND d.deptype = 'a'
    JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE 'INSERT' = ANY (f.privileges)
    UNION ALL
    SELECT 'runtime', s.name, to_regclass(format('%I.%I', current_schema(), s.name)), 'sequence', 'USAGE', NULL::text[]
    FROM (VALUES ('listener_claim_id'), ('listener_session_key')) AS s (name)
$$;
