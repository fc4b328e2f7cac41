-- books.author (text) becomes books.author_id. SQLite cannot alter a table that far, so this
-- builds a new one and puts it in the old one's place. Order lines and reviews refer to books and
-- survive that: flux turns foreign keys off around a migration, and checks them before its commit.

CREATE TABLE books_new (
    id INTEGER PRIMARY KEY,
    isbn TEXT NOT NULL UNIQUE CHECK (length(isbn) = 13),
    title TEXT NOT NULL,
    author_id INTEGER NOT NULL REFERENCES authors (id),
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0)
);

INSERT INTO books_new (id, isbn, title, author_id, price_cents)
SELECT books.id, isbn, title, authors.id, price_cents
FROM books
LEFT JOIN authors ON authors.name = books.author; -- LEFT: a book without its author must fail

DROP TABLE books;
ALTER TABLE books_new RENAME TO books;

CREATE INDEX books_by_title ON books (title);
CREATE INDEX books_by_author ON books (author_id);
