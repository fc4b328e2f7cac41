"""Orders and their lines; the audit columns come from a helper."""

from bookshop.sql_helpers import audit_columns_v1, touch_trigger_v1


def apply() -> str:
    return f"""\
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers (id),
    status TEXT NOT NULL DEFAULT 'basket'
        CHECK (status IN ('basket', 'placed', 'sent', 'cancelled')),
    {audit_columns_v1("orders")}
);

CREATE INDEX orders_by_customer ON orders (customer_id);

{touch_trigger_v1("orders")}

CREATE TABLE order_lines (
    order_id INTEGER NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    book_id INTEGER NOT NULL REFERENCES books (id),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    price_cents INTEGER NOT NULL, -- of one copy, on the day of the order
    PRIMARY KEY (order_id, book_id)
);

CREATE INDEX order_lines_by_book ON order_lines (book_id);
"""


def undo() -> str:
    return """\
DROP TABLE order_lines;
DROP TABLE orders;
"""
