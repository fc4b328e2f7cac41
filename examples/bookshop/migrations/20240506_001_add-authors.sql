CREATE TABLE authors (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Every author that a book names; the next migration links the books to them.
INSERT INTO authors (name)
SELECT DISTINCT author FROM books ORDER BY author;
