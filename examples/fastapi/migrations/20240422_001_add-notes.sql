CREATE TABLE notes (id integer PRIMARY KEY, text text NOT NULL);
INSERT INTO notes (text) VALUES ('Hello from a migrated database');
