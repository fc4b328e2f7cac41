"""What the bookshop does: take orders, and look at its customers and shelves."""

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple


class TopCustomer(NamedTuple):
    """A customer, the number of their orders, and what they spent."""

    name: str
    orders: int
    total_cents: int


class StockLine(NamedTuple):
    """A book and how many copies are left."""

    title: str
    author: str
    quantity: int
    reorder: bool


def place_order(connection: sqlite3.Connection, email: str, copies: Mapping[str, int]) -> None:
    """Order *copies* (how many of each ISBN) for the customer with *email*.

    Raises:
        LookupError: there is no such customer or book.
        sqlite3.IntegrityError: there are not enough copies in stock.
    """
    with connection:
        order = connection.execute(
            "INSERT INTO orders (customer_id, status)"
            " SELECT id, 'placed' FROM customers WHERE email = ?",
            (email,),
        )
        if not order.rowcount:
            raise LookupError(f"no customer {email}")
        for isbn, quantity in copies.items():
            line = connection.execute(
                "INSERT INTO order_lines (order_id, book_id, quantity, price_cents)"
                " SELECT ?, id, ?, price_cents FROM books WHERE isbn = ?",
                (order.lastrowid, quantity, isbn),
            )
            if not line.rowcount:
                raise LookupError(f"no book {isbn}")


def top_customers(connection: sqlite3.Connection, limit: int = 5) -> list[TopCustomer]:
    """Return the *limit* customers who spent most. Read-only."""
    rows = connection.execute(
        "SELECT name, orders, total_cents FROM top_customers"
        " ORDER BY total_cents DESC, name LIMIT ?",
        (limit,),
    )
    return [TopCustomer(*row) for row in rows]


def stock(connection: sqlite3.Connection) -> list[StockLine]:
    """Return every book with the copies left of it, the scarcest first. Read-only."""
    rows = connection.execute(
        "SELECT title, authors.name, quantity, quantity < reorder_below"
        " FROM stock"
        " JOIN books ON books.id = stock.book_id"
        " JOIN authors ON authors.id = books.author_id"
        " ORDER BY quantity, title, isbn"
    )
    return [StockLine(title, author, left, bool(low)) for title, author, left, low in rows]
