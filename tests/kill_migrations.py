"""Migrations to be killed in: each counts itself, and takes long enough to be hit.

Every count is a row of the table `counter`, which the first migration makes; an undo counts down.
A migration that runs twice, or in half, shows. Those that run without a transaction count between
their statements, and consist of what flux can find out for itself whether it took effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: What is never undone in these tests.
FIRST = "001-counter"

#: Seconds of `pg_sleep`, and rows, so that a kill can land inside of a statement.
_NAP = "SELECT pg_sleep(0.015);"
_ROWS = 20_000

_NO_TRANSACTION = "-- flux: no-transaction\n"


def _up(name: str) -> str:
    return f"UPDATE counter SET ran = ran + 1 WHERE name = '{name}';"


def _down(name: str) -> str:
    return f"UPDATE counter SET ran = ran - 1 WHERE name = '{name}';"


def _first(names: Iterable[str]) -> str:
    rows = ", ".join(f"('{name}', 0)" for name in names)
    return (
        "CREATE TABLE counter (name varchar(20) PRIMARY KEY, ran int NOT NULL);\n"
        # Scripts after a batch may run more than once; what they must see is the end of it.
        "CREATE TABLE seen_after (applied int NOT NULL);\nINSERT INTO seen_after VALUES (0);\n"
        f"INSERT INTO counter VALUES ('001', 0), {rows};\n{_up('001')}\n"
    )


_AFTER = "UPDATE seen_after SET applied = (SELECT count(*) FROM _flux_migrations);\n"

_CHANGE_PYTHON = """\
def apply(connection):
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE price (item int, cents int)")
    for number in range(300):
        cursor.execute(f"INSERT INTO price VALUES ({{number}}, {{number}} * 7)")
    cursor.execute("{up}")
    cursor.close()


def undo(connection):
    cursor = connection.cursor()
    cursor.execute("DROP TABLE price")
    cursor.execute("{down}")
    cursor.close()
"""


def _python(name: str) -> str:
    return _CHANGE_PYTHON.format(up=_up(name), down=_down(name))


# PostgreSQL ----------------------------------------------------------------------------------

_POSTGRES = {
    "002-item.sql": f"""\
CREATE TABLE item (id int PRIMARY KEY, name text, price int);
INSERT INTO item SELECT i, 'item ' || i, i % 97 FROM generate_series(1, {_ROWS}) i;
{_up("002")}
{_NAP}
CREATE INDEX item_price ON item (price);
""",
    "002-item.undo.sql": f"{_down('002')}\nDROP TABLE item;\n",
    "004-price.py": _python("004"),
    "005-kind.sql": (
        "CREATE TABLE kind (id int PRIMARY KEY, name text);\nCOPY kind (id, name) FROM stdin;\n"
        + "".join(f"{number}\tkind {number}\n" for number in range(500))
        + f"\\.\n{_NAP}\nALTER TABLE kind ADD CHECK (id >= 0);\n{_up('005')}\n"
    ),
    "005-kind.undo.sql": f"DROP TABLE kind;\n{_NAP}\n{_down('005')}\n",
    "007-rich.sql": f"""\
ALTER TABLE item ADD COLUMN rich boolean;
{_up("007")}
UPDATE item SET rich = price > 50 WHERE id % 2 = 0;
{_NAP}
CREATE VIEW rich AS SELECT name FROM item WHERE rich;
CREATE FUNCTION poor() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM item; $$;
""",
    "007-rich.undo.sql": f"""\
DROP FUNCTION poor;
DROP VIEW rich;
{_NAP}
ALTER TABLE item DROP COLUMN rich;
{_down("007")}
""",
    "009-many.sql": f"""\
DO $$ BEGIN
    FOR i IN 1..40 LOOP EXECUTE format('CREATE TABLE many_%s (id int PRIMARY KEY)', i); END LOOP;
END $$;
{_up("009")}
""",
    "009-many.undo.sql": f"{_down('009')}\n",
    # The files go after the transaction has committed, and before the client is told.
    "010-few.sql": f"""\
{_up("010")}
DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE format('DROP TABLE many_%s', i); END LOOP; END $$;
""",
    "010-few.undo.sql": f"{_down('010')}\n",
    "post-apply/seen.sql": f"{_NAP}\n{_AFTER}",
}

#: So that kills land between a migration's text, its row in the history, and COMMIT.
_SLOW_HISTORY = """\
CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(0.01); RETURN coalesce(new, old); END $$;
CREATE TRIGGER slow BEFORE INSERT OR DELETE ON _flux_migrations FOR EACH ROW EXECUTE FUNCTION nap();
CREATE TRIGGER slow_too AFTER INSERT OR DELETE ON _flux_migrations
FOR EACH ROW EXECUTE FUNCTION nap();
"""

_POSTGRES_NO_TRANSACTION = {
    "003-index.sql": f"""\
{_NO_TRANSACTION}{_up("003 a")}
CREATE INDEX CONCURRENTLY item_name ON item (name);
{_up("003 b")}
CREATE UNIQUE INDEX CONCURRENTLY item_both ON item (name, price);
{_NAP}
{_up("003 c")}
DROP INDEX CONCURRENTLY item_both;
{_up("003 d")}
REINDEX INDEX CONCURRENTLY item_name;
{_up("003 e")}
""",
    "003-index.undo.sql": f"""\
{_NO_TRANSACTION}{_down("003 a")}
{_down("003 b")}
{_NAP}
DROP INDEX CONCURRENTLY item_name;
{_down("003 c")}
{_down("003 d")}
{_down("003 e")}
""",
    "006-mood.sql": f"""\
{_NO_TRANSACTION}CREATE TYPE mood AS ENUM ('bad');
ALTER TYPE mood ADD VALUE 'good';
{_up("006 a")}
{_NAP}
ALTER TYPE mood ADD VALUE 'fair' BEFORE 'good';
{_up("006 b")}
CREATE TABLE feeling (mood mood DEFAULT 'fair');
""",
    "006-mood.undo.sql": f"""\
DROP TABLE feeling;
DROP TYPE mood;
{_down("006 a")}
{_down("006 b")}
""",
    "008-event.sql": f"""\
{_NO_TRANSACTION}CREATE TABLE event (at int NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE event_old PARTITION OF event FOR VALUES FROM (0) TO (10000);
INSERT INTO event SELECT generate_series(0, 9999);
{_up("008 a")}
ALTER TABLE event DETACH PARTITION event_old CONCURRENTLY;
{_up("008 b")}
{_NAP}
VACUUM event_old;
{_up("008 c")}
""",
    "008-event.undo.sql": f"""\
DROP TABLE event_old;
DROP TABLE event;
{_down("008 a")}
{_down("008 b")}
{_down("008 c")}
""",
}


# SQLite --------------------------------------------------------------------------------------

_SERIES = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
_SQLITE_NAP = f"{_SERIES.format(4 * _ROWS)} SELECT count(*) FROM n;"

_SQLITE = {
    "002-item.sql": f"""\
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price INTEGER);
{_SERIES.format(_ROWS)} INSERT INTO item SELECT i, 'item ' || i, i % 97 FROM n;
{_up("002")}
CREATE INDEX item_price ON item (price);
""",
    "002-item.undo.sql": f"{_down('002')}\nDROP TABLE item;\n",
    "004-price.py": _python("004"),
    "005-part.sql": f"""\
CREATE TABLE part (id INTEGER PRIMARY KEY, item INTEGER REFERENCES item (id));
INSERT INTO part SELECT id, id FROM item WHERE id % 10 = 0;
{_SQLITE_NAP}
{_up("005")}
""",
    "005-part.undo.sql": f"DROP TABLE part;\n{_down('005')}\n{_SQLITE_NAP}\n",
    # As https://sqlite.org/lang_altertable.html has it; `part` refers to the table meanwhile.
    "007-rich.sql": f"""\
CREATE TABLE item_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER, rich INTEGER);
INSERT INTO item_new SELECT id, name, price, price > 50 FROM item;
{_up("007")}
DROP TABLE item;
ALTER TABLE item_new RENAME TO item;
CREATE INDEX item_price ON item (price);
CREATE VIEW rich AS SELECT name FROM item WHERE rich;
""",
    "007-rich.undo.sql": f"""\
DROP VIEW rich;
ALTER TABLE item DROP COLUMN rich;
{_SQLITE_NAP}
{_down("007")}
""",
    "009-watch.sql": f"""\
CREATE TABLE change (name TEXT);
CREATE TRIGGER watch AFTER UPDATE ON item BEGIN INSERT INTO change VALUES (new.name); END;
UPDATE item SET price = price + 1 WHERE id % 4 = 0;
{_up("009")}
""",
    "009-watch.undo.sql": f"""\
{_down("009")}
DROP TRIGGER watch;
UPDATE item SET price = price - 1 WHERE id % 4 = 0;
DROP TABLE change;
""",
    "post-apply/seen.sql": f"{_SQLITE_NAP}\n{_AFTER}",
}

_SQLITE_NO_TRANSACTION = {
    "003-index.sql": f"""\
{_NO_TRANSACTION}{_up("003 a")}
CREATE TABLE shelf (id INTEGER PRIMARY KEY, item INTEGER);
{_up("003 b")}
VACUUM;
{_up("003 c")}
CREATE INDEX item_name ON item (name);
{_SQLITE_NAP}
PRAGMA user_version = 7;
{_up("003 d")}
""",
    "003-index.undo.sql": f"""\
{_NO_TRANSACTION}{_down("003 a")}
DROP INDEX IF EXISTS item_name;
{_down("003 b")}
DROP TABLE shelf;
PRAGMA user_version = 0;
{_down("003 c")}
{_down("003 d")}
""",
    "010-analyze.sql": f"""\
{_NO_TRANSACTION}DELETE FROM change WHERE rowid % 2 = 0;
{_up("010 a")}
VACUUM;
ALTER TABLE change ADD COLUMN at TEXT;
{_up("010 b")}
PRAGMA optimize;
""",
    "010-analyze.undo.sql": f"{_down('010 a')}\n{_down('010 b')}\n",
}


# All ----------------------------------------------------------------------------------------


def _with_first(files: Mapping[str, str], further: str = "") -> dict[str, str]:
    """The files, and the migration that makes a counter for each name that they count.

    `further` is what else that one does.
    """
    names = {
        piece.partition("'")[0]
        for text in files.values()
        for piece in text.split("WHERE name = '")[1:]
    }
    return {f"{FIRST}.sql": _first(sorted(names)) + further, **files}


#: By the backend's name, and then by the files' own.
MIGRATIONS = {
    "postgres": _with_first(_POSTGRES | _POSTGRES_NO_TRANSACTION, _SLOW_HISTORY),
    "sqlite": _with_first(_SQLITE | _SQLITE_NO_TRANSACTION),
}
