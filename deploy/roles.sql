-- Four roles, each with exactly what it needs. Run by an administrator, before the first `listener migrate` and after every
-- one; running it again changes nothing that is right, and takes back what is too much.
--
--   psql "$ADMIN_URL" -f deploy/roles.sql                      schema: LISTENER_SCHEMA, else public
--   psql "$ADMIN_URL" -v prefix=shop -v schema=shop -f deploy/roles.sql
--   psql "$ADMIN_URL" -v monitor=on -f deploy/roles.sql        `listener doctor` as the runtime role sees other roles' sessions
--   psql "$ADMIN_URL" -v takeover=on -f deploy/roles.sql       this prefix takes an installation over from another prefix
-- ADMIN_URL: a superuser; or a role with CREATEROLE that owns the database. It exits with 3 when it could not grant all.
--
-- listener_owner    owns the schema's objects; `listener migrate`, `listener attach`
-- listener_runtime  the service, and the commands beside it (status, retry, config, import, sync, doctor)
-- listener_writer   programs that insert orders, which are Pending by default, and read their state; neither payloads nor UPDATE
-- listener_reader   dashboards: every table without payloads, files and raw replies, and without the errors that quote them
--
-- No role gets a password here: ALTER ROLE listener_runtime PASSWORD '…' (or \password), certificates or IAM are yours.
-- What each role gets is the list listener_privileges(), which comes with the schema.
\set ON_ERROR_STOP on
\getenv env_schema LISTENER_SCHEMA
\if :{?env_schema}
\else
    \set env_schema ''
\endif
\if :{?schema}
\else
    \set schema :env_schema
\endif
\if :{?prefix}
\else
    \set prefix listener
\endif
\if :{?monitor}
\else
    \set monitor off
\endif
\if :{?takeover}
\else
    \set takeover off
\endif
-- Empty is not set, as for the service.
SELECT coalesce(nullif(:'schema', ''), 'public') AS schema, coalesce(nullif(:'prefix', ''), 'listener') AS prefix \gset
BEGIN;
SET LOCAL client_min_messages = warning;
-- psql puts no variables into the body of a DO: they go by way of settings.
SELECT set_config('listener.schema', :'schema', true), set_config('listener.prefix', :'prefix', true),
       set_config('listener.monitor', :'monitor', true), set_config('listener.takeover', :'takeover', true) \g /dev/null

DO $roles$
DECLARE
    prefix CONSTANT text := current_setting('listener.prefix');
    books CONSTANT regclass := to_regclass(format('%I.listener_migrations', current_setting('listener.schema')));
    other text;
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['monitor', 'takeover'] LOOP
        IF current_setting('listener.' || name) NOT IN ('on', 'off') THEN
            RAISE EXCEPTION '-v %=% means nothing', name, current_setting('listener.' || name) USING HINT = format('write -v %s=on, or leave it out', name);
        END IF;
    END LOOP;
    -- A forgotten -v prefix= would hand all objects of one installation to the roles of another.
    SELECT regexp_replace(r.rolname, '_owner$', '') INTO other
    FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner
    WHERE c.oid = books AND r.rolname LIKE '%\_owner' AND r.rolname <> prefix || '_owner'
      AND EXISTS (SELECT FROM pg_roles AS s WHERE s.rolname = regexp_replace(r.rolname, '_owner$', '_runtime'));
    IF other IS NOT NULL AND current_setting('listener.takeover') <> 'on' THEN
        RAISE EXCEPTION 'schema % of % belongs to %_owner, not to %_owner', current_setting('listener.schema'), current_database(), other, prefix
            USING HINT = format('give -v prefix=%s; or, to take it over from those roles: -v takeover=on', other);
    END IF;
    -- The server would cut longer names off, and all four would be one.
    IF octet_length(prefix || '_runtime') > 63 OR octet_length(current_setting('listener.schema')) > 63 THEN
        RAISE EXCEPTION 'too long for a name: prefix % (at most 55 bytes) or schema % (at most 63)', prefix, current_setting('listener.schema')
            USING HINT = 'give a shorter -v prefix or LISTENER_SCHEMA';
    END IF;
    FOREACH name IN ARRAY ARRAY['owner', 'runtime', 'writer', 'reader'] LOOP
        name := concat(prefix, '_', name);
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION', name);
        END IF;
        IF (SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = name) THEN
            RAISE EXCEPTION 'role % has more than it may have: it is a superuser, or may make roles or databases, or passes over row security', name
                USING HINT = format('ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS, or give another -v prefix', name);
        END IF;
        IF NOT (SELECT rolcanlogin FROM pg_roles WHERE rolname = name) THEN
            RAISE EXCEPTION 'role % may not log in', name USING HINT = format('ALTER ROLE %I LOGIN, or give another -v prefix', name);
        END IF;
    END LOOP;
    -- What a role is a member of, it may do: each of ours alone, and none of those that see or change everything.
    FOR name, other IN
        SELECT r.rolname, g.rolname FROM pg_roles AS r JOIN pg_roles AS g ON g.oid <> r.oid AND pg_has_role(r.oid, g.oid, 'MEMBER')
        WHERE r.rolname IN (prefix || '_owner', prefix || '_runtime', prefix || '_writer', prefix || '_reader')
          AND (g.rolsuper OR g.rolcreaterole OR g.rolbypassrls
               OR g.rolname IN (prefix || '_owner', prefix || '_runtime', 'pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files',
                                'pg_write_server_files', 'pg_execute_server_program'))
    LOOP
        RAISE EXCEPTION 'role % is a member of %, and so has more than it may have', name, other
            USING HINT = format('REVOKE %I FROM %I (or from the role between them), or give another -v prefix', other, name);
    END LOOP;
    -- An administrator who is no superuser grants on the owner's objects as a member of that role.
    IF NOT pg_has_role(concat(prefix, '_owner'), 'USAGE') THEN
        EXECUTE format('GRANT %I TO CURRENT_USER', concat(prefix, '_owner'));
    END IF;
END
$roles$;

DO $schema$
DECLARE
    in_schema CONSTANT text := current_setting('listener.schema');
    owner CONSTANT text := concat(current_setting('listener.prefix'), '_owner');
    name text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = in_schema) THEN
        EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', in_schema, owner);
    END IF;
    -- Functions that run as their owner look for tables here: nobody else may put anything into it.
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', in_schema);
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %I TO %I', in_schema, owner);
    FOREACH name IN ARRAY ARRAY['runtime', 'writer', 'reader'] LOOP
        name := concat(current_setting('listener.prefix'), '_', name);
        EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', in_schema, name);
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', in_schema, name);
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END LOOP;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), owner);
    -- An import keeps one batch of orders in a temporary table.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), concat(current_setting('listener.prefix'), '_runtime'));
    -- What an administrator may not grant or take away is only a warning of the server's.
    IF has_schema_privilege('public', in_schema, 'CREATE') THEN
        RAISE EXCEPTION 'everybody may still create objects in schema %, because % may not change that', in_schema, current_user
            USING HINT = format('run this script as a superuser or as the owner of the schema: REVOKE CREATE ON SCHEMA %I FROM PUBLIC', in_schema);
    END IF;
    FOREACH name IN ARRAY ARRAY['owner', 'runtime', 'writer', 'reader'] LOOP
        name := concat(current_setting('listener.prefix'), '_', name);
        IF NOT (has_schema_privilege(name, in_schema, 'USAGE') AND has_database_privilege(name, current_database(), 'CONNECT')) THEN
            RAISE EXCEPTION '% may not enter schema % of %, because % may not grant that', name, in_schema, current_database(), current_user
                USING HINT = 'run this script as a superuser, or as the owner of database and schema';
        END IF;
    END LOOP;
END
$schema$;

DO $activity$
DECLARE
    name text;
BEGIN
    -- Dashboards see what other roles' sessions do, never more of the tables; `listener doctor` too, with -v monitor=on.
    FOREACH name IN ARRAY CASE WHEN current_setting('listener.monitor') = 'on' THEN ARRAY['reader', 'runtime'] ELSE ARRAY['reader'] END LOOP
        name := concat(current_setting('listener.prefix'), '_', name);
        IF NOT pg_has_role(name, 'pg_monitor', 'USAGE') THEN
            EXECUTE format('GRANT pg_monitor TO %I', name);
        END IF;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    -- The one thing that may be left out: nothing works less for it.
    RAISE WARNING 'not granted, because % may not: GRANT pg_monitor TO %; without it the sessions of other roles are not seen', current_user, name;
END
$activity$;

SELECT to_regprocedure(format('%I.listener_privileges()', :'schema')) IS NOT NULL AS is_migrated \gset
\if :is_migrated
    DO $owner$
    DECLARE
        in_schema CONSTANT text := current_setting('listener.schema');
        owner CONSTANT text := concat(current_setting('listener.prefix'), '_owner');
        statements text[];
        statement text;
    BEGIN
        PERFORM set_config('search_path', quote_ident(in_schema), true);
        -- What was made by somebody else, a superuser say, would also run as that one. Attached tables stay their owners';
        -- a sequence goes with its table.
        SELECT array_agg(format('ALTER %s %s OWNER TO %I', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass, owner))
        INTO statements
        FROM pg_class AS c
        WHERE c.relowner <> quote_ident(owner)::regrole AND c.oid IN (SELECT p.relation FROM listener_privileges() AS p)
          AND NOT EXISTS (SELECT FROM listener_queues AS q WHERE to_regclass(format('%I.%I', q.table_schema, q.table_name)) = c.oid)
          AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S');
        statements := statements || ARRAY(
            SELECT format('ALTER FUNCTION %s OWNER TO %I', f.oid::regprocedure, owner)
            FROM pg_proc AS f
            WHERE f.pronamespace = quote_ident(in_schema)::regnamespace AND f.proowner <> quote_ident(owner)::regrole
              AND EXISTS (SELECT FROM listener_migrations AS m WHERE m.name = concat('functions/', f.proname, '.sql'))
        ) || ARRAY(
            -- Whose programs wrote the older scripts' tables as their owner goes on doing so: beside the service, and after a
            -- roll back. Owners that this script has made, for another prefix, do not.
            SELECT format('GRANT %s %s TO %I', CASE c.relkind WHEN 'S' THEN 'USAGE ON SEQUENCE' ELSE 'SELECT, INSERT, UPDATE, DELETE ON' END,
                          c.oid::regclass, r.rolname)
            FROM unnest(ARRAY['orders_inbox', 'configuration_params', 'polling_state', 'polling_metrics']) AS older (name)
            JOIN pg_class AS c
                ON c.oid = to_regclass(older.name)
                OR c.relkind = 'S'
                AND EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.refobjid = to_regclass(older.name) AND d.deptype = 'a')
            JOIN pg_roles AS r ON r.oid = c.relowner
            WHERE NOT r.rolsuper AND r.rolname <> owner
              AND NOT (r.rolname LIKE '%\_owner' AND EXISTS (SELECT FROM pg_roles AS s WHERE s.rolname = regexp_replace(r.rolname, '_owner$', '_runtime'))));
        FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP
            EXECUTE statement;
        END LOOP;
    END
    $owner$;

    DO $grants$
    DECLARE
        prefix CONSTANT text := current_setting('listener.prefix');
        missing text;
        statements text[];
        statement text;
    BEGIN
        PERFORM set_config('search_path', quote_ident(current_setting('listener.schema')), true);
        SELECT string_agg(DISTINCT p.object, ', ') INTO missing FROM listener_privileges() AS p WHERE p.relation IS NULL;
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'not there: %', missing
                USING HINT = format('run `listener migrate` as %s_owner; `listener detach` a queue whose table was dropped', prefix);
        END IF;
        statements := ARRAY(
            SELECT DISTINCT format('REVOKE ALL ON %s %s FROM PUBLIC, %I, %I, %I', p.kind, p.relation,
                                   prefix || '_runtime', prefix || '_writer', prefix || '_reader')
            FROM listener_privileges() AS p
            WHERE NOT EXISTS (SELECT FROM listener_queues AS q WHERE to_regclass(format('%I.%I', q.table_schema, q.table_name)) = p.relation)
        ) || ARRAY(
            SELECT format('GRANT %s %s ON %s %s TO %I', p.privilege,
                          (SELECT format('(%s)', string_agg(quote_ident(c), ', ')) FROM unnest(p.columns) AS c HAVING count(*) > 0),
                          p.kind, p.relation, concat(prefix, '_', p.role))
            FROM listener_privileges() AS p
        ) || ARRAY(
            -- Everybody may call a function, unless somebody has taken that away for new ones.
            SELECT format('GRANT EXECUTE ON FUNCTION %s TO %I, %I, %I', f.oid::regprocedure, prefix || '_runtime', prefix || '_writer', prefix || '_reader')
            FROM pg_proc AS f
            WHERE f.pronamespace = quote_ident(current_setting('listener.schema'))::regnamespace
              AND EXISTS (SELECT FROM listener_migrations AS m WHERE m.name = concat('functions/', f.proname, '.sql'))
              AND NOT has_function_privilege('public', f.oid, 'EXECUTE')
        ) || ARRAY(
            SELECT DISTINCT format('GRANT USAGE ON SCHEMA %I TO %I', q.table_schema, prefix || '_runtime') FROM listener_queues AS q
            WHERE NOT has_schema_privilege(prefix || '_runtime', q.table_schema, 'USAGE')
        );
        FOREACH statement IN ARRAY statements LOOP
            EXECUTE statement;
        END LOOP;
        -- A GRANT that the administrator may not make is only a warning of the server's.
        SELECT string_agg(format('%s on %s for %s', g.privilege, g.object, g.role), ', ') INTO missing
        FROM (
            SELECT concat(prefix, '_', p.role) AS role, p.object, p.privilege,
                   CASE WHEN p.kind = 'sequence' THEN has_sequence_privilege(concat(prefix, '_', p.role), p.relation::oid, p.privilege)
                        WHEN p.columns IS NULL THEN has_table_privilege(concat(prefix, '_', p.role), p.relation::oid, p.privilege)
                        ELSE (SELECT bool_and(has_column_privilege(concat(prefix, '_', p.role), p.relation::oid, c, p.privilege)) FROM unnest(p.columns) AS c)
                   END AS is_there
            FROM listener_privileges() AS p
            UNION ALL
            SELECT prefix || '_runtime', format('schema %I', q.table_schema), 'USAGE', has_schema_privilege(prefix || '_runtime', q.table_schema, 'USAGE')
            FROM listener_queues AS q) AS g
        WHERE NOT g.is_there;
        IF missing IS NOT NULL THEN
            RAISE EXCEPTION 'not granted, because % may not: %', current_user, missing
                USING HINT = 'run this script as a superuser, or as the owner of these tables; an attached table''s owner grants on it';
        END IF;
    END
    $grants$;
\else
    \echo 'The roles are there. Now run listener migrate with the owner role (the first time as an administrator, where tables of older scripts belong to others), then this script again: it grants what the tables need.'
\endif
COMMIT;
