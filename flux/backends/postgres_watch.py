"""Watching a running statement from a connection of its own: what it waits for, who blocks it.

The watcher does not use the connection that holds the migration lock. A query there would have a
snapshot, and CREATE INDEX CONCURRENTLY waits for the end of every transaction that it sees with
one: of the very batch that waits for the index. Here each look is a transaction of its own.

Which statement of a message is reached, the server is asked, too: before each statement the
message writes its number into `application_name`, which other sessions can read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flux.backends.postgres_driver import Driver
from flux.backends.watch import Sight, Watcher
from flux.progress import Blocker, Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LOOK_WITHIN = 1000  # milliseconds that the server gets for an answer
_NAME_BYTES = 63  # of an application_name
_QUERY_PREFIX = 200  # characters; the server keeps 1,024 bytes of a query, if not told otherwise
_NAME = re.compile(r"flux: (\d+) of \d+( done)?(?:, (.+))?", re.DOTALL)
_ODD = re.compile(r"[^A-Za-z0-9_. -]")
#: Characters of a file's name that the name of a session shows whatever stands before it.
_SHOWN = 32

_LOOK = """\
SET LOCAL statement_timeout = {timeout};
SELECT a.application_name, CASE WHEN a.state = 'active' THEN left(a.query, 1000) END,
    a.wait_event_type || ' ' || a.wait_event, p.phase,
    CASE WHEN p.phase LIKE 'waiting%' THEN 100 * p.lockers_done / nullif(p.lockers_total, 0)
         WHEN p.blocks_total > 0 THEN 100 * p.blocks_done / p.blocks_total
         ELSE 100 * p.tuples_done / nullif(p.tuples_total, 0) END,
    b.pid, nullif(b.application_name, ''),
    coalesce(b.client_hostname, pg_catalog.host(b.client_addr)), b.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - b.state_change)::float8,
    left(b.query, 1000)
FROM pg_catalog.pg_stat_activity a
LEFT JOIN pg_catalog.pg_stat_progress_create_index p ON p.pid = a.pid
LEFT JOIN LATERAL (SELECT DISTINCT unnest(pg_catalog.pg_blocking_pids(a.pid)) AS pid) blocker
    ON true
LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = blocker.pid
WHERE a.pid = {session}
ORDER BY b.pid"""

_POOLED_SESSION = """\
(SELECT s.pid FROM pg_catalog.pg_stat_activity s,
    LATERAL (SELECT s.pid IN ({at_fence})) f (is_there)
WHERE f.is_there OR s.state = 'active' AND starts_with(s.query, {{statement}})
ORDER BY f.is_there DESC, s.query_start DESC NULLS LAST LIMIT 1)"""


def shown(file: str) -> str:
    """What of a file's name is sure to stand in `name_for`."""
    return _plain(file)[:_SHOWN]


def name_for(number: int, total: int, file: str) -> str:
    """The application_name while a statement of a file runs; one past the last is the end."""
    where = f"{number} of {total}" if number <= total else f"{total} of {total} done"
    # The server would warn of what is too long.
    return f"flux: {where}, {_plain(file)}"[:_NAME_BYTES]


def _plain(file: str) -> str:
    """A name without the characters that the server would take away."""
    return _ODD.sub("?", file)


def naming(name: str) -> str:
    """An expression that shows a name for the rest of the transaction.

    A query, not a SET, whose every text pg_stat_statements would keep as a statement of its own.
    """
    return f"pg_catalog.set_config('application_name', '{name}', true)"


class SessionWatcher(Watcher):
    """Watches the session that runs a script, by way of a connection that `connect` opens.

    `connect` gives a connection of `driver`, in autocommit, or None where it cannot; it does not
    raise.

    `pid` is that session's, or None behind a pooler. There it is the last one that came to the
    fence (an earlier one is a killed run's), or else the one that runs the statement; `at_fence`
    is a query for the pids at the fence.
    """

    def __init__(
        self,
        report: Callable[[Progress], None],
        driver: Driver,
        connect: Callable[[], Any],
        pid: int | None,
        at_fence: str,
    ) -> None:
        super().__init__(report)
        self._driver = driver
        self._connect = connect
        self._session = str(pid) if pid is not None else _POOLED_SESSION.format(at_fence=at_fence)
        #: The connection that is asked just now.
        self._asked: Any = None

    @contextmanager
    def looking(self) -> Iterator[Callable[[], Sight]]:
        """Open a connection for the time of one script; without one, only the clock is known."""
        connection = self._connect()
        if connection is None:
            yield Sight
            return
        try:
            yield lambda: self._look(connection)
        finally:
            connection.close()

    def hang_up(self) -> None:
        """Cut the connection, for instance where the network has forgotten it."""
        import socket

        if (connection := self._asked) is not None:
            with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    def _look(self, connection: Any) -> Sight:
        self._asked = connection
        statement = self.statement
        try:
            prefix = "NULL"
            if statement is not None:
                prefix = self._driver.literal(connection, statement.text[:_QUERY_PREFIX])
            session = self._session.format(statement=prefix)
            with self._driver.cursor(connection) as cursor:
                cursor.execute(_LOOK.format(timeout=_LOOK_WITHIN, session=session))
                rows = cursor.fetchall()
        except (self._driver.error, UnicodeError):
            return Sight()  # the migration itself will tell, if it matters
        finally:
            self._asked = None
        return _sight(rows)


def _sight(rows: list[Any]) -> Sight:
    """What the rows say: of the session once in each, of a blocker where there is one."""
    if not rows:
        return Sight()
    name, query, waits_for, phase, percent = rows[0][:5]
    found = _NAME.match(name or "")
    number = int(found[1]) + bool(found[2]) if found else None
    blockers = tuple(Blocker(*row[5:]) for row in rows if row[5] is not None)
    file = found[3][:_SHOWN] if found and found[3] else None
    return Sight(number, query, waits_for, phase, percent, blockers, file)
