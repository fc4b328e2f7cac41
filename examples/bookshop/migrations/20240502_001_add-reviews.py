"""Customers review books: once each, and a review goes with its book or its customer."""

from bookshop.sql_helpers import audit_columns_v1, touch_trigger_v1


def apply() -> str:
    return f"""\
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY,
    book_id INTEGER NOT NULL REFERENCES books (id) ON DELETE CASCADE,
    customer_id INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
    stars INTEGER NOT NULL CHECK (stars BETWEEN 1 AND 5),
    body TEXT NOT NULL DEFAULT '',
    {audit_columns_v1("reviews")},
    UNIQUE (book_id, customer_id)
);

CREATE INDEX reviews_by_customer ON reviews (customer_id);

{touch_trigger_v1("reviews")}
"""


def undo() -> str:
    return "DROP TABLE reviews;"
