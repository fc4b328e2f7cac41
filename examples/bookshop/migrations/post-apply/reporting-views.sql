-- Views that only reports read. Edit them here: they are made anew by every batch.

DROP VIEW IF EXISTS top_customers;
CREATE VIEW top_customers AS
SELECT
    customers.id AS customer_id,
    customers.name,
    count(*) AS orders,
    sum(order_totals.total_cents) AS total_cents
FROM customers
JOIN order_totals ON order_totals.customer_id = customers.id
WHERE order_totals.status IN ('placed', 'sent')
GROUP BY customers.id;

DROP VIEW IF EXISTS stock_to_reorder;
CREATE VIEW stock_to_reorder AS
SELECT books.id AS book_id, books.isbn, books.title, stock.quantity, stock.reorder_below
FROM stock
JOIN books ON books.id = stock.book_id
WHERE stock.quantity < stock.reorder_below;

DROP VIEW IF EXISTS sales_by_country;
CREATE VIEW sales_by_country AS
SELECT countries.name AS country, count(*) AS orders, sum(order_totals.total_cents) AS total_cents
FROM order_totals
JOIN customers ON customers.id = order_totals.customer_id
JOIN countries ON countries.code = customers.country
WHERE order_totals.status IN ('placed', 'sent')
GROUP BY countries.code;
