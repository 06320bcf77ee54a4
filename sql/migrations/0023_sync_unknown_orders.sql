-- An order whose row of the inbox was deleted is unknown from then on, not only when a list tells of it again.
CREATE OR REPLACE VIEW shipstation_unknown_orders AS
SELECT account, order_id, order_number, order_key, order_status, store_id, order_total, created_there_at, modified_there_at, first_seen_at
FROM shipstation_orders AS s
WHERE NOT EXISTS (SELECT FROM orders_inbox AS q WHERE q.id = s.inbox_id);
