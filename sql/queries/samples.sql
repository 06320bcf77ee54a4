-- Sample orders for `listener demo`; what any shop's program would do.

-- name: insert_order
INSERT INTO orders_inbox (source, order_number, payload) VALUES (%(source)s, %(order_number)s, %(payload)s::jsonb);

-- name: count_by_status
SELECT status, count(*) AS rows FROM orders_inbox GROUP BY status;

-- name: example_order
-- Printed by the demo to be pasted, never run by us.
INSERT INTO orders_inbox (order_number, payload) VALUES ({order_number}, {payload});
