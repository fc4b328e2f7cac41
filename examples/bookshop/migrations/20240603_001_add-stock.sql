CREATE TABLE stock (
    book_id INTEGER PRIMARY KEY REFERENCES books (id) ON DELETE CASCADE,
    quantity INTEGER NOT NULL DEFAULT 0 CHECK (quantity >= 0),
    reorder_below INTEGER NOT NULL DEFAULT 3
);

-- We start with ten copies of everything.
INSERT INTO stock (book_id, quantity)
SELECT id, 10 FROM books;

CREATE TRIGGER order_lines_take_stock AFTER INSERT ON order_lines
BEGIN
    SELECT RAISE(ABORT, 'not enough copies in stock')
    WHERE NEW.quantity > coalesce((SELECT quantity FROM stock WHERE book_id = NEW.book_id), 0);
    UPDATE stock SET quantity = quantity - NEW.quantity WHERE book_id = NEW.book_id;
END;

CREATE TRIGGER order_lines_return_stock AFTER DELETE ON order_lines
BEGIN
    UPDATE stock SET quantity = quantity + OLD.quantity WHERE book_id = OLD.book_id;
END;
