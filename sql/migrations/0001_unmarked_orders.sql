-- Rows of an older orders_inbox that has no status are no work, as in an attached table. The next file adds the column to a table that
-- lacks it, and by its default each of these rows would be Pending, and uploaded. Where it was applied already, this does nothing.
DO $mark$
BEGIN
    IF to_regclass('orders_inbox') IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass('orders_inbox') AND attname = 'status' AND NOT attisdropped)
    THEN
        ALTER TABLE orders_inbox ADD COLUMN status text NOT NULL DEFAULT 'Existing';
        ALTER TABLE orders_inbox ALTER COLUMN status SET DEFAULT 'Pending';
    END IF;
END
$mark$;
