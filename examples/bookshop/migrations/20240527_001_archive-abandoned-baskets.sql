-- flux: foreign-keys
-- The directive keeps foreign keys on: deleting an order must take its lines along
-- (ON DELETE CASCADE).

CREATE TABLE archived_orders AS
SELECT * FROM orders WHERE status = 'basket' AND updated_at < '2024-05-01';

CREATE TABLE archived_order_lines AS
SELECT * FROM order_lines WHERE order_id IN (SELECT id FROM archived_orders);

DELETE FROM orders WHERE id IN (SELECT id FROM archived_orders);
