"""A few customers and orders, so that there is something to see."""

import sqlite3

from bookshop.catalogue import place_order

CUSTOMERS = (
    ("ada@example.org", "Ada Byron", "GB"),
    ("astrid@example.org", "Astrid Ericsson", "SE"),
    ("jorge@example.org", "Jorge Francisco Acevedo", "ES"),
)

ORDERS = (
    ("ada@example.org", {"9780141439471": 8, "9780345391803": 1}),
    ("astrid@example.org", {"9780441478125": 2, "9780141439587": 1}),
    ("ada@example.org", {"9780441478125": 1}),
    ("jorge@example.org", {"9780307474728": 3, "9780140444308": 1}),
)


def add_sample(connection: sqlite3.Connection) -> None:
    """Add the sample customers and orders to a shop that has no customers yet."""
    if connection.execute("SELECT 1 FROM customers").fetchone():
        return
    with connection:
        connection.executemany(
            "INSERT INTO customers (email, name, country) VALUES (?, ?, ?)", CUSTOMERS
        )
    for email, copies in ORDERS:
        place_order(connection, email, copies)
