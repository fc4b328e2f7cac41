"""A log of changes to the tables that staff edit by hand, kept by triggers."""

from collections.abc import Iterator

TABLES = ("authors", "books", "customers")
ROW_OF = {"insert": "NEW", "update": "NEW", "delete": "OLD"}


def apply() -> Iterator[str]:
    yield """\
CREATE TABLE change_log (
    id INTEGER PRIMARY KEY,
    table_name TEXT NOT NULL,
    row_id INTEGER NOT NULL,
    action TEXT NOT NULL,
    changed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)"""
    yield "CREATE INDEX change_log_by_row ON change_log (table_name, row_id)"
    for table in TABLES:
        for action, row in ROW_OF.items():
            yield f"""\
CREATE TRIGGER {table}_log_{action} AFTER {action.upper()} ON {table}
BEGIN
    INSERT INTO change_log (table_name, row_id, action)
    VALUES ('{table}', {row}.id, '{action}');
END"""


def undo() -> Iterator[str]:
    for table in TABLES:
        for action in ROW_OF:
            yield f"DROP TRIGGER {table}_log_{action}"
    yield "DROP TABLE change_log"
