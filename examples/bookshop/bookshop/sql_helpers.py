"""Pieces of SQL that migrations share.

A helper that a migration uses never changes again: flux hashes the text that results, so every
migration that was applied with it would be reported as divergent. Write a `_v2` instead.
"""


def audit_columns_v1(table: str) -> str:
    """Return definitions of `created_at` and `updated_at`, for use inside a CREATE TABLE."""
    return f"""\
created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
        CONSTRAINT {table}_updated_after_created CHECK (updated_at >= created_at)"""


def touch_trigger_v1(table: str) -> str:
    """Return a trigger that sets `updated_at` when a row of *table* changes."""
    return f"""\
CREATE TRIGGER {table}_touch AFTER UPDATE ON {table}
WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE {table} SET updated_at = CURRENT_TIMESTAMP WHERE id = NEW.id;
END;"""
