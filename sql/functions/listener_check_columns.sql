-- Raises when a column of a queue's name is there, but is not what the engine's statements need.
CREATE OR REPLACE FUNCTION listener_check_columns(target regclass) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT own.*, a.attgenerated, a.attidentity, a.attnotnull, format_type(a.atttypid, a.atttypmod) AS type,
               format_type(a.atttypid, NULL) = ANY (own.accepted) AS fits, t.typtype = 'e' AS is_enum,
               own.added_type = 'text' OR EXISTS (SELECT FROM pg_cast AS c WHERE c.castsource = a.atttypid AND c.castcontext <> 'e'
                                                  AND c.casttarget = own.added_type::regtype) AS converts
        FROM listener_queue_columns() AS own
        JOIN pg_attribute AS a ON a.attrelid = target AND a.attname = own.name AND NOT a.attisdropped
        JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE own.accepted IS NOT NULL
    LOOP
        IF found.attgenerated <> '' OR found.attidentity <> '' THEN
            RAISE EXCEPTION 'column % of % is generated, but the queue must write it', found.name, target
                USING ERRCODE = '22023', HINT = 'rename the column';
        ELSIF NOT found.fits THEN
            RAISE EXCEPTION 'column % of % is %, but the queue needs %', found.name, target, found.type, array_to_string(found.accepted, ' or ')
                USING ERRCODE = '22023', HINT = concat(CASE WHEN found.is_enum THEN 'an enumeration does not hold the queue''s words; ' END,
                    'rename the column', CASE WHEN found.converts THEN
                    format(', or ALTER TABLE %s ALTER COLUMN %I TYPE %s', target, found.name, found.added_type) END);
        ELSIF found.emptied AND found.attnotnull THEN
            RAISE EXCEPTION 'column % of % is NOT NULL, but the queue must be able to empty it', found.name, target
                USING ERRCODE = '22023', HINT = format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', target, found.name);
        END IF;
    END LOOP;
END
$$;
