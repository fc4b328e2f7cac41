CREATE TABLE entries (
    id integer PRIMARY KEY,
    written text NOT NULL DEFAULT (date()),
    text text NOT NULL
);
