-- Which of ShipStation's orders have one number: a row without a key is found by its number where only one has it.
CREATE INDEX IF NOT EXISTS shipstation_orders_number ON shipstation_orders (account, order_number) WHERE parent_id IS NULL;
