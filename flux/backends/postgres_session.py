"""Session state on PostgreSQL: a migration's settings reach neither the next one nor flux.

On a connection of flux's own, everything returns to how the session started. On one that was
handed in, everything returns to how it was handed in, settings the application had made included.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import extensions

from flux.backends.postgres_leftovers import Found, Leftovers
from flux.migration import Script

_CHANGED = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' "
    # … but for what is a transaction's own.
    "AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable') "
    "ORDER BY name"
)


class Session(NamedTuple):
    """How a session was found.

    `settings` are those the application had changed; None on a connection of flux's own.
    `found` is what it had besides settings, of the kinds that the script leaves which runs.
    """

    restore_always: str
    settings: dict[str, str] | None = None
    found: Found = Found()

    @property
    def restore(self) -> str:
        """SQL that undoes what a script has changed, and that can run inside a transaction."""
        if self.settings is not None:
            return self.restore_always
        return self.found.leftovers.take_back_all + self.restore_always

    def before(self, script: Script, connection: Any) -> Session:
        """The session as it is before a script runs. Read-only."""
        leftovers = Leftovers.of(script)
        if self.settings is None:
            return self._replace(found=Found(leftovers))
        return self._replace(found=Found.before(connection, leftovers))

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
        self.found.restore_placeholders(connection)
        if connection.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE:
            # The script is done: what another role has made and keeps does not make it fail.
            with suppress(psycopg2.Error):
                self.found.take_back(connection)
