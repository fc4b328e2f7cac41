"""Readable addresses: /books/les-miserables. A book may have several, so that old ones live on.

SQL cannot take the accents off a title, so this migration does its work in Python: functions with a
parameter get the DB-API connection, in flux's transaction, which flux commits.
"""

import re
import sqlite3
import unicodedata


def apply(connection: sqlite3.Connection) -> None:
    connection.execute(
        """
        CREATE TABLE book_slugs (
            slug TEXT PRIMARY KEY,
            book_id INTEGER NOT NULL REFERENCES books (id) ON DELETE CASCADE
        )
        """
    )
    connection.execute("CREATE INDEX book_slugs_by_book ON book_slugs (book_id)")

    slugs: dict[str, int] = {}
    for book_id, title in connection.execute("SELECT id, title FROM books ORDER BY id"):
        slug = slugify(title)
        slugs[f"{slug}-{book_id}" if slug in slugs else slug] = book_id
    connection.executemany("INSERT INTO book_slugs (slug, book_id) VALUES (?, ?)", slugs.items())


def undo(connection: sqlite3.Connection) -> None:
    connection.execute("DROP TABLE book_slugs")


def slugify(title: str) -> str:
    """Return *title* in lower-case ASCII words joined by hyphens."""
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_title.lower().replace("'", "")).strip("-") or "book"
