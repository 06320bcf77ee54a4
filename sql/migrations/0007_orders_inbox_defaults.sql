-- An adopted orders_inbox may have columns of our names without a default: a new row would have no priority or no due
-- time, and never be claimed. Rows that are already there keep their values, and no default that exists is changed.

DO $defaults$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES ('priority', '100'), ('scheduled_at', 'now()'), ('attempts', '0'), ('revision', '0')) AS d (name, value)
        WHERE NOT EXISTS (
            SELECT FROM pg_attrdef JOIN pg_attribute a ON a.attrelid = adrelid AND a.attnum = adnum
            WHERE adrelid = 'orders_inbox'::regclass AND a.attname = d.name)
    LOOP
        EXECUTE format('ALTER TABLE orders_inbox ALTER COLUMN %I SET DEFAULT %s', wanted.name, wanted.value);
    END LOOP;
END
$defaults$;
