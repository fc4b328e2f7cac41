CREATE TABLE books (
    id INTEGER PRIMARY KEY,
    isbn TEXT NOT NULL UNIQUE CHECK (length(isbn) = 13),
    title TEXT NOT NULL,
    author TEXT NOT NULL,
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0)
);

CREATE INDEX books_by_title ON books (title);

-- The titles we open with.
INSERT INTO books (isbn, title, author, price_cents) VALUES
    ('9780140444308', 'Les Misérables', 'Victor Hugo', 1499),
    ('9780141439471', 'Frankenstein; or, The Modern Prometheus', 'Mary Shelley', 899),
    ('9780141439518', 'Pride and Prejudice', 'Jane Austen', 799),
    ('9780141439587', 'Emma', 'Jane Austen', 799),
    ('9780199535521', 'Emma', 'Jane Austen', 999), -- another edition
    ('9780307474728', 'Cien años de soledad', 'Gabriel García Márquez', 1650),
    ('9780345391803', 'The Hitchhiker''s Guide to the Galaxy', 'Douglas Adams', 850),
    ('9780441478125', 'The Left Hand of Darkness', 'Ursula K. Le Guin', 1099);
