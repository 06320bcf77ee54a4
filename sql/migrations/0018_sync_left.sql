-- Orders whose state is stored and not yet told to the inbox: somebody had its row locked.
ALTER TABLE shipstation_orders ADD COLUMN IF NOT EXISTS must_fold boolean NOT NULL DEFAULT false;

CREATE INDEX IF NOT EXISTS shipstation_orders_left ON shipstation_orders (account, order_id) WHERE must_fold;

COMMENT ON COLUMN shipstation_orders.must_fold IS 'the row of orders_inbox was locked; the end of each sync tries again';
