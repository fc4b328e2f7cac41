INSERT INTO orders SELECT * FROM archived_orders;
INSERT INTO order_lines SELECT * FROM archived_order_lines;

DROP TABLE archived_order_lines;
DROP TABLE archived_orders;
