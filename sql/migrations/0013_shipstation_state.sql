-- What ShipStation says: one row an order, one row a shipment or fulfillment. orders_inbox is worked out from them, so
-- that it does not matter in which order, how often or from which list a fact arrives.

CREATE TABLE IF NOT EXISTS shipstation_orders (
    account text NOT NULL,
    order_id bigint NOT NULL,
    order_key text,
    order_number text,
    order_status text NOT NULL,
    parent_id bigint,
    store_id bigint,
    order_total numeric,
    created_there_at timestamptz,
    modified_there_at timestamptz,
    inbox_id bigint,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, order_id)
);

CREATE INDEX IF NOT EXISTS shipstation_orders_inbox ON shipstation_orders (inbox_id) WHERE inbox_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS shipstation_orders_unknown ON shipstation_orders (account, first_seen_at) WHERE inbox_id IS NULL;
CREATE INDEX IF NOT EXISTS shipstation_orders_parent ON shipstation_orders (account, parent_id) WHERE parent_id IS NOT NULL;

-- Rows from before our time may have no order_key; empty in a new installation.
CREATE INDEX IF NOT EXISTS orders_inbox_without_key ON orders_inbox (order_number) WHERE order_key IS NULL;

CREATE OR REPLACE VIEW shipstation_unknown_orders AS
SELECT account, order_id, order_number, order_key, order_status, store_id, order_total, created_there_at, modified_there_at, first_seen_at
FROM shipstation_orders
WHERE inbox_id IS NULL;

CREATE TABLE IF NOT EXISTS shipstation_parcels (
    account text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('shipment', 'fulfillment')),
    parcel_id bigint NOT NULL,
    order_id bigint NOT NULL,
    order_number text,
    tracking_number text,
    carrier_code text,
    service_code text,
    cost numeric,
    shipped_at timestamptz,
    created_there_at timestamptz,
    voided_at timestamptz,
    is_void boolean NOT NULL,
    is_return boolean NOT NULL,
    must_check boolean NOT NULL DEFAULT false,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, kind, parcel_id)
);

CREATE INDEX IF NOT EXISTS shipstation_parcels_order ON shipstation_parcels (account, order_id);
CREATE INDEX IF NOT EXISTS shipstation_parcels_must_check ON shipstation_parcels (account, order_id) WHERE must_check;

COMMENT ON TABLE shipstation_orders IS 'What ShipStation says of each order; several for one row of orders_inbox where it was split there';
COMMENT ON COLUMN shipstation_orders.inbox_id IS 'the row of orders_inbox; null = made by hand at ShipStation, see the view shipstation_unknown_orders';
COMMENT ON TABLE shipstation_parcels IS 'Labels bought in ShipStation (shipment), and orders shipped by someone else (fulfillment); several an order';
COMMENT ON COLUMN shipstation_parcels.shipped_at IS 'the label''s date, midnight in Pacific time; it may be in the future';
COMMENT ON COLUMN shipstation_parcels.must_check IS 'its order is not shipped any more; no list tells of a voided fulfillment, so it is asked for by its order';
