CREATE TABLE books_old (
    id INTEGER PRIMARY KEY,
    isbn TEXT NOT NULL UNIQUE CHECK (length(isbn) = 13),
    title TEXT NOT NULL,
    author TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0)
);

INSERT INTO books_old (id, isbn, title, author, price_cents)
SELECT books.id, isbn, title, authors.name, price_cents
FROM books
LEFT JOIN authors ON authors.id = books.author_id;

DROP TABLE books;
ALTER TABLE books_old RENAME TO books;

CREATE INDEX books_by_title ON books (title);
