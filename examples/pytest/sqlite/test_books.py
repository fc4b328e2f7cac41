import sqlite3

import pytest


@pytest.mark.parametrize("title", ["Emma", "Middlemarch"])
def test_a_book_is_added_to_an_empty_shelf(connection: sqlite3.Connection, title: str) -> None:
    connection.execute("INSERT INTO books (title) VALUES (?)", (title,))
    assert connection.execute("SELECT title FROM books").fetchall() == [(title,)]
