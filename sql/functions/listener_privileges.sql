-- Which role needs what on the objects of this schema: the one list, which deploy/roles.sql grants, `listener doctor` compares
-- and the tests take apart. Every row of it is needed: without it a statement of the role is refused.
-- role: runtime = the service and the commands that work beside it, writer = programs that insert orders, reader = dashboards.
-- columns: null = the whole relation. relation: null = it is not there.
-- Neither the writer nor the reader sees what an order, a file, a webhook or a record of an API holds, nor the errors and reports
-- that quote it. A writer does not name a status, so what it inserts is Pending.
-- SELECT FOR UPDATE needs UPDATE; a sequence behind an identity column needs nothing for an INSERT, one behind a serial column does.
-- Functions are not on it: deploy/roles.sql grants EXECUTE on all that came with the schema, which everybody has by default.
CREATE OR REPLACE FUNCTION listener_privileges()
RETURNS TABLE (role text, object text, relation regclass, kind text, privilege text, columns text[])
LANGUAGE sql STABLE
SET search_path FROM CURRENT
AS $$
    WITH wanted (role, object, privileges, hidden, shown) AS (
        SELECT w.role, o.object, w.privileges, w.hidden, w.shown
        FROM (VALUES
            -- configuration_history: written by a trigger, as the owner; nobody forges it
            ('runtime', '{SELECT}', '{listener_migrations, listener_queues, configuration_history, shipstation_unknown_orders}', NULL, NULL),
            ('runtime', '{SELECT, INSERT, UPDATE}',
             '{orders_inbox, import_files, polling_state, api_budgets, shipstation_orders, shipstation_parcels, sync_quarantine}', NULL, NULL),
            -- DELETE: retention_days, clean-up of metrics, and `listener config restore`
            ('runtime', '{SELECT, INSERT, UPDATE, DELETE}', '{sync_runs, polling_metrics, webhook_events, configuration_params}', NULL, NULL),
            ('writer', '{INSERT}', '{orders_inbox}', NULL, '{source, order_number, payload, priority, scheduled_at}'),
            ('writer', '{SELECT}', '{orders_inbox}', NULL, '{id, source, order_number, status, scheduled_at, attempts, created_at, finished_at,
                                                             uploaded_at, fulfillment_status, tracking_number, carrier_code, shipped_at}'),
            ('reader', '{SELECT}', '{listener_queues, sync_runs, configuration_params, configuration_history, polling_state, polling_metrics,
                                     polling_metrics_hourly, polling_metrics_last_hour, api_budgets, shipstation_orders,
                                     shipstation_unknown_orders, shipstation_parcels}', NULL, NULL),
            ('reader', '{SELECT}', '{orders_inbox}', '{payload, last_error}', NULL),
            ('reader', '{SELECT}', '{import_files}', '{content, body, report, last_error}', NULL),
            ('reader', '{SELECT}', '{sync_quarantine}', '{row, query}', NULL),
            ('reader', '{SELECT}', '{webhook_events}', '{body}', NULL)
        ) AS w (role, privileges, objects, hidden, shown)
        CROSS JOIN LATERAL unnest(w.objects::text[]) AS o (object)
    ), found AS (
        SELECT w.role, w.object, to_regclass(format('%I.%I', current_schema(), w.object)) AS relation,
               w.privileges::text[] AS privileges, w.hidden::text[] AS hidden, w.shown::text[] AS shown
        FROM wanted AS w
        UNION ALL
        -- not to_regclass: who may not enter the table's schema would see nothing of the whole list
        SELECT 'runtime', format('%I.%I', q.table_schema, q.table_name),
               (SELECT c.oid::regclass FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = q.table_schema AND c.relname = q.table_name),
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
    -- `listener doctor` compares what they have given with what is there
    SELECT DISTINCT f.role, s.relname::text, s.oid::regclass, 'sequence', 'SELECT', NULL::text[]
    FROM found AS f
    JOIN pg_depend AS d ON d.refobjid = f.relation AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
    JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
    WHERE f.role = 'runtime' AND strpos(f.object, '.') = 0  -- an attached table's is its owner's
    UNION ALL
    SELECT 'runtime', s.name, to_regclass(format('%I.%I', current_schema(), s.name)), 'sequence', 'USAGE', NULL::text[]
    FROM (VALUES ('listener_claim_id'), ('listener_session_key')) AS s (name)
$$;
