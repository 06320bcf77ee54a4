-- Raises when the words of a queue cannot be told apart, or the table's own column status does not take them.
CREATE OR REPLACE FUNCTION listener_check_words(target regclass, ready text, done text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    words CONSTANT text[] := ARRAY[ready, 'Processing', done, 'Failed'];
    own record;
    rule record;
    word text;
    is_taken boolean;
BEGIN
    IF ready = '' OR done = '' OR (SELECT count(DISTINCT w) FROM unnest(words || 'Existing'::text) AS w) < 5 THEN
        RAISE EXCEPTION 'ready word % and done word % must differ from each other, from Processing, Failed and Existing, and not be empty',
            quote_literal(ready), quote_literal(done) USING ERRCODE = '22023', HINT = 'choose other words';
    END IF;
    SELECT a.attnum, a.atttypmod - 4 AS size, format_type(a.atttypid, a.atttypmod) AS type INTO own
    FROM pg_attribute AS a WHERE a.attrelid = target AND a.attname = 'status' AND NOT a.attisdropped;
    FOREACH word IN ARRAY words LOOP
        IF own.size > 0 AND length(word) > own.size THEN
            RAISE EXCEPTION 'column status of % is %, too short for %', target, own.type, quote_literal(word)
                USING ERRCODE = '22023', HINT = format('ALTER TABLE %s ALTER COLUMN status TYPE text', target);
        END IF;
        FOR rule IN
            SELECT conname, CASE contype WHEN 'c' THEN pg_get_expr(conbin, conrelid)
                ELSE format('EXISTS (SELECT FROM %s AS list WHERE list.%I = one.status)', confrelid::regclass, listed.attname) END AS condition
            FROM pg_constraint LEFT JOIN pg_attribute AS listed ON listed.attrelid = confrelid AND listed.attnum = confkey[1]
            WHERE conrelid = target AND contype IN ('c', 'f') AND conkey = ARRAY[own.attnum]
        LOOP
            EXECUTE format('SELECT (%s) FROM (SELECT %L::%s AS status) AS one', rule.condition, word, own.type) INTO is_taken;
            IF NOT is_taken THEN
                RAISE EXCEPTION 'constraint % of % does not let status be %', quote_ident(rule.conname), target, quote_literal(word)
                    USING ERRCODE = '22023', HINT = format('let it allow %s, or drop it', array_to_string(words, ', '));
            END IF;
        END LOOP;
    END LOOP;
END
$$;
