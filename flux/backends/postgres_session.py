"""Session state on PostgreSQL: a migration's settings reach neither the next one nor flux.

On a connection of flux's own, everything returns to how the session started. On one that was
handed in, everything returns to how it was handed in, settings the application had made included.
"""

from __future__ import annotations

from contextlib import suppress

from flux.backends.postgres_driver import IDLE
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from flux.backends.postgres import PostgresBackend
    from flux.backends.postgres_leftovers import Found
    from flux.migration import Script

_CHANGED = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' "
    # … but for what is a transaction's own.
    "AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable') "
    "ORDER BY name"
)


class Session(Record):
    """How a session was found.

    `settings` are those the application had changed; None on a connection of flux's own.
    `found` is what it had besides settings, of the kinds that the script leaves which runs; None
    before any has.
    """

    restore_always: str
    settings: dict[str, str] | None = None
    found: Found | None = None

    @property
    def restore(self) -> str:
        """SQL that undoes what a script has changed, and that can run inside a transaction."""
        if self.settings is not None or self.found is None:
            return self.restore_always
        return self.found.leftovers.take_back_all + self.restore_always

    def before(self, script: Script, backend: PostgresBackend) -> Session:
        """The session as it is before a script runs. Read-only."""
        from flux.backends.postgres_leftovers import Found, Leftovers

        leftovers = Leftovers.of(script)
        if self.settings is None:
            return self._replace(found=Found(leftovers))
        return self._replace(found=Found.before(leftovers, backend))

    @classmethod
    def own(cls) -> Session:
        """A session that flux opened: the role first, so that the rest is flux's to set."""
        return cls(
            "CLOSE ALL;\nRESET SESSION AUTHORIZATION;\nRESET ROLE;\nRESET ALL;\nDISCARD TEMP;\n"
        )

    @classmethod
    def borrowed(cls, backend: PostgresBackend) -> Session:
        """A session that was handed in. Read-only."""
        [(user, role)] = backend.fetch(
            "SELECT pg_catalog.quote_ident(session_user), "
            "CASE current_setting('role') WHEN 'none' THEN 'NONE' "
            "ELSE pg_catalog.quote_ident(current_setting('role')) END"
        )
        settings = dict(backend.fetch(_CHANGED))
        return cls(f"SET SESSION AUTHORIZATION {user};\nSET ROLE {role};\n", settings)

    def settle(self, backend: PostgresBackend) -> None:
        """Undo what a migration has changed for the session, if it has not been undone yet."""
        if self.settings is None:
            backend.run_sql(self.restore)
            return
        from flux.backends.postgres_leftovers import set_setting

        now = dict(backend.fetch(self.restore + _CHANGED))
        for name in sorted(now.keys() - self.settings.keys()):
            backend.run_sql(f"RESET {backend.identifier(name)}")
        for name, setting in self.settings.items():
            if now.get(name) != setting:
                backend.run_sql(set_setting(name, setting, backend.literal))
        if self.found is None:
            return
        self.found.restore_placeholders(backend)
        if backend.dbapi.info.transaction_status == IDLE:
            # The script is done: what another role has made and keeps does not make it fail.
            with suppress(backend.driver_error):
                self.found.take_back(backend)
