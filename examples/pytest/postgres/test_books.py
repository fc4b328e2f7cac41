import pytest
from psycopg2.extensions import connection as Connection


@pytest.mark.parametrize("title", ["Emma", "Middlemarch"])
def test_a_book_is_added_to_an_empty_shelf(connection: Connection, title: str) -> None:
    cursor = connection.cursor()
    cursor.execute("INSERT INTO books (title) VALUES (%s)", (title,))
    cursor.execute("SELECT title FROM books")
    assert cursor.fetchall() == [(title,)]
