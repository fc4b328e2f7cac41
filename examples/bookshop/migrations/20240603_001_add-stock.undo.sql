DROP TRIGGER order_lines_return_stock;
DROP TRIGGER order_lines_take_stock;
DROP TABLE stock;
