-- What the view shows is what is unknown: a row of the inbox may also have been deleted.
COMMENT ON COLUMN shipstation_orders.inbox_id IS 'the row of orders_inbox, which may have been deleted since; null = none was ever known; see the view shipstation_unknown_orders';
