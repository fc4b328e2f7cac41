-- flux: on-change
-- Where we deliver, and for how much. To change it, edit this file: the next apply runs it again.
-- It makes its own table, since it also runs when every migration has been rolled back.

CREATE TABLE IF NOT EXISTS countries (
    code TEXT PRIMARY KEY, -- ISO 3166
    name TEXT NOT NULL,
    delivery_cents INTEGER NOT NULL
);

INSERT INTO countries (code, name, delivery_cents) VALUES
    ('DE', 'Germany', 350),
    ('ES', 'Spain', 450),
    ('FR', 'France', 350),
    ('GB', 'United Kingdom', 590),
    ('SE', 'Sweden', 490)
ON CONFLICT (code) DO UPDATE
SET name = excluded.name, delivery_cents = excluded.delivery_cents;
