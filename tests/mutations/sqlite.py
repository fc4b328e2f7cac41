"""Broken undos on SQLite, where most that is changed of a table is changed by making it anew."""

from __future__ import annotations

from tests.mutations import Mutation

_T = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, amount NUMERIC);\n"
_INDEX = _T + "CREATE INDEX t_name ON t (name);\n"
_TRIGGER = (
    _T + "CREATE TABLE log (id, at);\n"
    "CREATE TRIGGER watch AFTER UPDATE OF name ON t WHEN NEW.name <> OLD.name\n"
    "BEGIN\n    INSERT INTO log VALUES (NEW.id, 1);\nEND;\n"
)
_VIEW = _T + "CREATE VIEW v AS SELECT id, name FROM t WHERE amount > 0;\n"


def _rebuilt(columns: str, options: str = "") -> str:
    """`t` made anew, with its rows, as https://sqlite.org/lang_altertable.html has it."""
    return (
        f"CREATE TABLE new_t ({columns}){options};\nINSERT INTO new_t SELECT * FROM t;\n"
        "DROP TABLE t;\nALTER TABLE new_t RENAME TO t;\n"
    )


def _table(
    id: str, right: str, wrong: str, left: str, options: tuple[str, str] = ("", "")
) -> Mutation:
    """A table made anew without what it had, and the undo of that, which puts it back wrongly."""
    return Mutation(
        id,
        f"CREATE TABLE t ({right}){options[0]};\n",
        _rebuilt("id BLOB PRIMARY KEY, name BLOB"),
        _rebuilt(right, options[0]),
        _rebuilt(wrong, options[1]),
        left,
    )  # fmt: skip


SQLITE = (
    # Columns
    _table("not null", "id INT, name TEXT NOT NULL", "id INT, name TEXT", "column name"),
    _table("default", "id INT, name TEXT DEFAULT 'x'", "id INT, name TEXT", "column name"),
    _table(
        "default changed",
        "id INT, name TEXT DEFAULT 'x'",
        "id INT, name TEXT DEFAULT 'X'",
        "column name",
    ),
    _table("collation", "id INT, name TEXT COLLATE NOCASE", "id INT, name TEXT", "column name"),
    _table("column type", "id INT, name TEXT", "id INT, name VARCHAR(80)", "column name"),
    _table("primary key", "id INTEGER PRIMARY KEY, name", "id INTEGER, name", "column id"),
    _table(
        "autoincrement",
        "id INTEGER PRIMARY KEY AUTOINCREMENT, name",
        "id INTEGER PRIMARY KEY, name",
        "column id",
    ),
    Mutation(
        "column left",
        _T,
        "ALTER TABLE t ADD COLUMN phone TEXT;\nALTER TABLE t ADD COLUMN fax TEXT;\n",
        "ALTER TABLE t DROP COLUMN phone;\nALTER TABLE t DROP COLUMN fax;\n",
        "ALTER TABLE t DROP COLUMN phone;\n",
        "column fax",
    ),
    Mutation(
        "column not renamed back",
        _VIEW,
        "ALTER TABLE t RENAME COLUMN name TO full_name;\nALTER TABLE t ADD COLUMN nick TEXT;\n",
        "ALTER TABLE t DROP COLUMN nick;\nALTER TABLE t RENAME COLUMN full_name TO name;\n",
        "ALTER TABLE t DROP COLUMN nick;\n",
        "column full_name",
    ),
    Mutation(
        "column of another name",
        _T,
        "ALTER TABLE t RENAME COLUMN name TO full_name",
        "ALTER TABLE t RENAME COLUMN full_name TO name",
        "ALTER TABLE t RENAME COLUMN full_name TO Name",
        "column Name",
    ),
    Mutation(
        "generated column",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b INT AS (a * 2));\n",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t ADD COLUMN b INT AS (a * 2)",
        "ALTER TABLE t ADD COLUMN b INT",
        "column b",
    ),
    Mutation(
        "generated expression",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b INT AS (a * 2));\n",
        "ALTER TABLE t DROP COLUMN b",
        "ALTER TABLE t ADD COLUMN b INT AS (a * 2)",
        "ALTER TABLE t ADD COLUMN b INT AS (a + 2)",
        "column b",
    ),
    # Constraints, tables
    _table("check", "id INT, name TEXT, CHECK (id > 0)", "id INT, name TEXT", "check (id > 0)"),
    _table(
        "check expression",
        "id INT CONSTRAINT positive CHECK (id > 0), name TEXT",
        "id INT CONSTRAINT positive CHECK (id >= 0), name TEXT",
        "column id",
    ),
    _table(
        "constraint name",
        "id INT, name TEXT, CONSTRAINT one UNIQUE (name)",
        "id INT, name TEXT, UNIQUE (name)",
        "constraint one",
    ),
    _table(
        "unique with another column",
        "id INT, name TEXT, UNIQUE (name)",
        "id INT, name TEXT, UNIQUE (name, id)",
        "unique (name)",
    ),
    _table(
        "conflict clause",
        "id INT, name TEXT UNIQUE ON CONFLICT REPLACE",
        "id INT, name TEXT UNIQUE",
        "column name",
    ),
    _table(
        "foreign key lost",
        "id INT, name TEXT REFERENCES names (name)",
        "id INT, name TEXT",
        "column name",
    ),
    _table(
        "foreign key action",
        "id INT, name TEXT, FOREIGN KEY (name) REFERENCES names (name) ON DELETE CASCADE",
        "id INT, name TEXT, FOREIGN KEY (name) REFERENCES names (name)",
        "foreign key (name)",
    ),
    _table(
        "foreign key deferred",
        "id INT, name TEXT REFERENCES names (name) DEFERRABLE INITIALLY DEFERRED",
        "id INT, name TEXT REFERENCES names (name)",
        "column name",
    ),
    _table(
        "without rowid",
        "id INT PRIMARY KEY, name TEXT",
        "id INT PRIMARY KEY, name TEXT",
        "table t",
        (" WITHOUT ROWID", ""),
    ),
    _table("strict", "id INT, name TEXT", "id INT, name TEXT", "table t", (" STRICT", ""))._replace(
        since=337
    ),
    Mutation(
        "table not renamed back",
        _T,
        "ALTER TABLE t RENAME TO people;\nCREATE VIEW t AS SELECT * FROM people;\n",
        "DROP VIEW t;\nALTER TABLE people RENAME TO t;\n",
        "DROP VIEW t;\nCREATE TABLE t AS SELECT * FROM people;\nDROP TABLE people;\n",
        "column id",
    ),
    Mutation(
        "table left",
        _T,
        "CREATE TABLE a (id);\nCREATE TABLE b (id);\n",
        "DROP TABLE a;\nDROP TABLE b;\n",
        "DROP TABLE a;\n",
        "table b",
    ),
    # Indexes
    Mutation(
        "index lost with its table",
        _INDEX,
        _rebuilt("id INTEGER PRIMARY KEY, name TEXT NOT NULL, amount NUMERIC")
        + "CREATE INDEX t_name ON t (name);\n",
        _rebuilt("id INTEGER PRIMARY KEY, name TEXT, amount NUMERIC")
        + "CREATE INDEX t_name ON t (name);\n",
        _rebuilt("id INTEGER PRIMARY KEY, name TEXT, amount NUMERIC"),
        "index t_name",
    ),
    Mutation(
        "partial index",
        _T + "CREATE INDEX t_name ON t (name) WHERE amount > 0;\n",
        "DROP INDEX t_name",
        "CREATE INDEX t_name ON t (name) WHERE amount > 0",
        "CREATE INDEX t_name ON t (name)",
        "index t_name",
    ),
    Mutation(
        "unique index",
        _T + "CREATE UNIQUE INDEX t_name ON t (lower(name));\n",
        "DROP INDEX t_name",
        "CREATE UNIQUE INDEX t_name ON t (lower(name))",
        "CREATE INDEX t_name ON t (lower(name))",
        "index t_name",
    ),
    Mutation(
        "index sort order",
        _T + "CREATE INDEX t_name ON t (name DESC, amount);\n",
        "DROP INDEX t_name",
        "CREATE INDEX t_name ON t (name DESC, amount)",
        "CREATE INDEX t_name ON t (name, amount)",
        "index t_name",
    ),
    Mutation(
        "index collation",
        _T + "CREATE INDEX t_name ON t (name COLLATE NOCASE);\n",
        "DROP INDEX t_name",
        "CREATE INDEX t_name ON t (name COLLATE NOCASE)",
        "CREATE INDEX t_name ON t (name)",
        "index t_name",
    ),
    # Views, triggers
    Mutation(
        "view",
        _VIEW,
        "DROP VIEW v;\nALTER TABLE t ADD COLUMN nick TEXT;\n",
        "ALTER TABLE t DROP COLUMN nick;\n" + _VIEW.removeprefix(_T),
        "ALTER TABLE t DROP COLUMN nick;\nCREATE VIEW v AS SELECT id, name FROM t;\n",
        "view v",
    ),
    Mutation(
        "trigger lost with its table",
        _TRIGGER,
        _rebuilt("id INTEGER PRIMARY KEY, name TEXT NOT NULL, amount NUMERIC")
        + _TRIGGER[_TRIGGER.index("CREATE TRIGGER") :],
        _rebuilt("id INTEGER PRIMARY KEY, name TEXT, amount NUMERIC")
        + _TRIGGER[_TRIGGER.index("CREATE TRIGGER") :],
        _rebuilt("id INTEGER PRIMARY KEY, name TEXT, amount NUMERIC"),
        "trigger watch",
    ),
    Mutation(
        "trigger body",
        _TRIGGER,
        "DROP TRIGGER watch",
        _TRIGGER[_TRIGGER.index("CREATE TRIGGER") :],
        _TRIGGER[_TRIGGER.index("CREATE TRIGGER") :].replace("NEW.id, 1", "OLD.id, 1"),
        "trigger watch",
    ),
    Mutation(
        "trigger condition",
        _TRIGGER,
        "DROP TRIGGER watch",
        _TRIGGER[_TRIGGER.index("CREATE TRIGGER") :],
        _TRIGGER[_TRIGGER.index("CREATE TRIGGER") :].replace(" WHEN NEW.name <> OLD.name", ""),
        "trigger watch",
    ),
    # All else
    Mutation(
        "virtual table",
        "CREATE VIRTUAL TABLE words USING fts5 (word, tokenize = 'porter ascii');\n",
        "DROP TABLE words",
        "CREATE VIRTUAL TABLE words USING fts5 (word, tokenize = 'porter ascii')",
        "CREATE VIRTUAL TABLE words USING fts5 (word)",
        "virtual table words",
    ),
    Mutation(
        "user version",
        "PRAGMA user_version = 3;\n",
        "CREATE TABLE t (id);\nPRAGMA user_version = 4;\n",
        "DROP TABLE t;\nPRAGMA user_version = 3;\n",
        "DROP TABLE t;\n",
        "pragma user_version",
    ),
)
