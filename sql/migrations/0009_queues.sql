-- The tables that `listener attach` has made queues, and what it added to each, so that `listener detach` takes away
-- exactly that. A queue's name is its table's, with the schema in front when it is another one than ours.

CREATE TABLE IF NOT EXISTS listener_queues (
    name text PRIMARY KEY,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    key_column text NOT NULL,
    key_type text NOT NULL,
    ready_word text NOT NULL DEFAULT 'Pending',
    done_word text NOT NULL DEFAULT 'Done',
    content text[] NOT NULL DEFAULT '{}',
    added jsonb NOT NULL DEFAULT '{}',
    attached_at timestamptz,
    UNIQUE (table_schema, table_name)
);

COMMENT ON TABLE listener_queues IS 'The attached tables; written by attach_queue and detach_queue';
COMMENT ON COLUMN listener_queues.content IS 'columns whose change makes a finished row work again';
COMMENT ON COLUMN listener_queues.added IS 'what detach_queue takes away';
COMMENT ON COLUMN listener_queues.attached_at IS 'null until the last index is there';
