CREATE TABLE customers (
    id INTEGER PRIMARY KEY,
    email TEXT NOT NULL UNIQUE COLLATE NOCASE,
    name TEXT NOT NULL,
    country TEXT NOT NULL CHECK (length(country) = 2), -- ISO 3166: 'GB', 'SE'
    joined_on TEXT NOT NULL DEFAULT CURRENT_DATE
);
