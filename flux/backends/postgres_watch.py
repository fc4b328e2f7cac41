"""Watching a running statement from the second connection: what it waits for, who blocks it.

A thread looks at the server's statistics while the first connection is busy. It runs inside
savepoints on the connection that holds the migration lock, so that no error of its own can free
the lock, and it never raises: a migration does not fail because it could not be watched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import extensions

#: Seconds that a statement runs before it is reported, and at most between two reports.
REPORT_AFTER = 2.0
REPORT_EVERY = 30.0
_LOOK_EVERY = 0.5


class Blocker(NamedTuple):
    """A session that a statement waits for, as far as this user may see it.

    `seconds` is how long it has been in its state; `query` is its last one, cut to a line.
    """

    pid: int
    application: str | None
    host: str | None
    state: str | None
    seconds: float | None
    query: str | None

    def __str__(self) -> str:
        who = ", ".join(filter(None, [self.application, self.host and f"on {self.host}"]))
        text = f"pid {self.pid}" + (f" ({who})" if who else "")
        if self.state:
            text += f", {self.state}"
        if self.seconds is not None:
            text += f" for {self.seconds:.0f} s"
        return text + (f": {self.query}" if self.query else "")


class Sight(NamedTuple):
    """What the server says of the statement that runs.

    `phase` and `percent` are those of an index build.
    """

    seconds: float
    waits_for: str | None
    phase: str | None
    percent: int | None
    blockers: tuple[Blocker, ...]

    def __str__(self) -> str:
        parts = [f"for {self.seconds:.0f} s"]
        if self.phase:
            parts.append(self.phase + (f", {self.percent} %" if self.percent is not None else ""))
        if self.blockers:
            parts.append("blocked by " + "; ".join(map(str, self.blockers)))
        elif self.waits_for and not self.phase:
            parts.append(f"waits for {self.waits_for}")
        return ", ".join(parts)


_ACTIVITY = """\
SELECT a.wait_event_type || ' ' || a.wait_event, p.phase,
    CASE WHEN p.blocks_total > 0 THEN (100 * p.blocks_done / p.blocks_total)::int
         WHEN p.tuples_total > 0 THEN (100 * p.tuples_done / p.tuples_total)::int
         WHEN p.lockers_total > 0 THEN (100 * p.lockers_done / p.lockers_total)::int END
FROM pg_catalog.pg_stat_activity a
LEFT JOIN pg_catalog.pg_stat_progress_create_index p ON p.pid = a.pid
WHERE a.pid = {pid}"""

_BLOCKERS = """\
SELECT b.pid, nullif(b.application_name, ''),
    coalesce(b.client_hostname, pg_catalog.host(b.client_addr)), b.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - b.state_change)::float8,
    left(pg_catalog.regexp_replace(b.query, '[[:space:]]+', ' ', 'g'), 100)
FROM pg_catalog.pg_stat_activity b
WHERE b.pid = ANY (pg_catalog.pg_blocking_pids({pid}))
ORDER BY b.pid"""


class Watcher:
    """Looks at a session by way of another `connection`, while something is watched.

    `session` is SQL that gives the pid of the session to look at, which behind a pooler the
    client does not know.
    """

    def __init__(self, connection: Any, session: str) -> None:
        self._connection = connection
        self._session = session
        self._report: Callable[[Sight], None] | None = None
        self._started = 0.0
        self._patience = REPORT_AFTER
        self._stopped = threading.Event()
        self.last: Sight | None = None

    @contextmanager
    def watching(self, report: Callable[[Sight], None], patience: float) -> Iterator[None]:
        """Watch what runs inside; look first after `patience` seconds, report after two.

        `report` is called from a thread of the watcher's own.
        """
        self.last = None
        self._report = report
        self._started = time.monotonic()
        self._patience = min(patience, REPORT_AFTER)
        self._stopped.clear()
        thread = threading.Thread(target=self._run, name="flux-watcher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        pause, next_report = self._patience, REPORT_AFTER
        while not self._stopped.wait(pause):
            pause = _LOOK_EVERY
            try:
                sight = self._look()
            except psycopg2.Error:
                continue  # the migration itself will tell, if it matters
            if sight is None or self._stopped.is_set():
                continue
            self.last = sight
            if self._report is not None and sight.seconds >= next_report:
                self._report(sight)
                next_report = sight.seconds + min(sight.seconds, REPORT_EVERY)

    def _look(self) -> Sight | None:
        with self._connection.cursor(cursor_factory=extensions.cursor) as cursor:
            cursor.execute("SAVEPOINT flux_watcher")
            try:
                cursor.execute(_ACTIVITY.format(pid=self._session))
                found = cursor.fetchone()
                cursor.execute(_BLOCKERS.format(pid=self._session))
                blockers = tuple(Blocker(*row) for row in cursor.fetchall())
            finally:
                cursor.execute("ROLLBACK TO flux_watcher; RELEASE flux_watcher")
        if found is None:
            return None
        waits_for, phase, percent = found
        return Sight(time.monotonic() - self._started, waits_for, phase, percent, blockers)
