"""Session state on PostgreSQL: a migration's settings reach neither the next one nor flux.

On a connection of flux's own, everything returns to how the session started. On one that was
handed in, everything returns to how it was handed in, settings the application had made included.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg2 import extensions

_CHANGED = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' "
    # … but for what is a transaction's own.
    "AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable') "
    "ORDER BY name"
)


class Session(NamedTuple):
    """How a session was found. `restore` is SQL that can run inside a transaction.

    `settings` are those the application had changed; None on a connection of flux's own.
    """

    restore: str
    settings: dict[str, str] | None = None

    @classmethod
    def own(cls) -> Session:
        """A session that flux opened: the role first, so that the rest is flux's to set."""
        return cls(
            "CLOSE ALL;\nRESET SESSION AUTHORIZATION;\nRESET ROLE;\nRESET ALL;\nDISCARD TEMP;\n"
        )

    @classmethod
    def borrowed(cls, connection: Any) -> Session:
        """A session that was handed in. Read-only."""
        with connection.cursor(cursor_factory=extensions.cursor) as cursor:
            cursor.execute(
                "SELECT pg_catalog.quote_ident(session_user), "
                "CASE current_setting('role') WHEN 'none' THEN 'NONE' "
                "ELSE pg_catalog.quote_ident(current_setting('role')) END"
            )
            user, role = cursor.fetchone()
            cursor.execute(_CHANGED)
            settings = dict(cursor.fetchall())
        return cls(f"SET SESSION AUTHORIZATION {user};\nSET ROLE {role};\n", settings)

    def settle(self, connection: Any) -> None:
        """Undo what a migration has changed for the session, if it has not been undone yet."""
        with connection.cursor(cursor_factory=extensions.cursor) as cursor:
            if self.settings is None:
                cursor.execute(self.restore)
                return
            cursor.execute(self.restore + _CHANGED)
            now = dict(cursor.fetchall())
            for name in sorted(now.keys() - self.settings.keys()):
                cursor.execute(f"RESET {extensions.quote_ident(name, connection)}")
            for name, setting in self.settings.items():
                if now.get(name) != setting:
                    cursor.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, setting))
