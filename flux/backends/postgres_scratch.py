"""Scratch databases on a PostgreSQL server, and templates that they are copies of.

What is told of one stands in its comment, and the time in its name as well: a process may be
killed before it has written the comment. All times are the server's. Templates of a project that
is gone stay until somebody drops them; their comment has its path.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, Final, NamedTuple

from flux.address import libpq_url
from flux.backends.patience import Patience
from flux.backends.postgres_beyond import read_beyond
from flux.backends.postgres_driver import Driver
from flux.backends.postgres_errors import INSUFFICIENT_PRIVILEGE, report, sqlstate
from flux.exceptions import ScratchDatabaseError
from flux.fingerprint import Fingerprint
from flux.scratch import (
    BUILDING,
    KEPT_TEMPLATES,
    LEFT_AFTER,
    SCRATCH,
    TEMPLATE,
    ScratchPlace,
    check_key,
    digest,
    made_at,
    new_name,
    owner,
)

# SQLSTATEs
_IN_USE: Final = "55006"  # object_in_use
_MISSING: Final = "3D000"  # invalid_catalog_name
_EXISTS: Final = "42P04"  # duplicate_database
#: Seconds to wait for a database that others use for a moment, as all do with template1.
_BUSY_FOR: Final = 60.0
_FORCED_FOR: Final = 5.0
#: What cannot be done without the right to create databases.
_MAKING: Final = "cannot make a scratch database"
_BUILDING: Final = "cannot make a template"

#: Nothing that a role or a database sets may end the wait for another process.
_BEGIN: Final = """\
SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0;
SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8, current_user::text, pid,
    pg_catalog.concat(pid, '.', extract(epoch FROM backend_start))
FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()
"""
#: This database and template1, each with all columns that its version has.
_DATABASES: Final = """\
SELECT (pg_catalog.to_jsonb(d) || pg_catalog.jsonb_build_object(
    'encoding', pg_catalog.pg_encoding_to_char(d.encoding)))::text
FROM pg_catalog.pg_database d
WHERE d.datname IN (pg_catalog.current_database(), 'template1')
ORDER BY d.datname <> pg_catalog.current_database()
"""
_OURS: Final = """\
SELECT d.datname::text, pg_catalog.shobj_description(d.oid, 'pg_database'),
    EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
            WHERE a.datid = d.oid AND a.backend_type <> 'autovacuum worker'
            OR pg_catalog.concat(a.pid, '.', extract(epoch FROM a.backend_start)) =
                pg_catalog.substring(pg_catalog.shobj_description(d.oid, 'pg_database'),
                                     ', by session ([0-9.]+)'))
FROM pg_catalog.pg_database d
WHERE pg_catalog.starts_with(d.datname::text, '{}') ORDER BY d.datname
"""


class _Ours(NamedTuple):
    """A database of flux's: its name, its comment, and whether somebody is connected to it."""

    name: str
    comment: str | None
    in_use: bool

    @property
    def made(self) -> float | None:
        """When it was made, by the comment or else the name, in seconds since 1970."""
        match = re.match(r"flux: .*?, made (\S+Z)(?: |$)", self.comment or "")
        if match is not None:
            with suppress(ValueError):
                return datetime.fromisoformat(match[1].replace("Z", "+00:00")).timestamp()
        return made_at(self.name)

    @property
    def project(self) -> str:
        """What project a template is of."""
        return (self.comment or "").partition(", for ")[2]


class PostgresScratchPlace(ScratchPlace):
    """See `ScratchPlace`. One connection, to the address's own database, makes and drops them."""

    def __init__(
        self,
        driver: Driver,
        parameters: Mapping[str, Any],
        connect: Callable[[], Any],
        *,
        wait: float,
    ) -> None:
        """`connect` gives a connection by `parameters` of libpq, in autocommit.

        `wait` is how many seconds to wait while another process builds a template.
        """
        self._driver = driver
        self._parameters = parameters
        self._connect = connect
        self._wait = wait
        self._connection: Any = None
        #: How far the server's clock is ahead, in seconds.
        self._ahead = 0.0
        self._how: str | None = None

    def __enter__(self) -> PostgresScratchPlace:
        self._connection = self._connect()
        with self._reporting("cannot use the server for scratch databases"):
            [(now, self._role, pid, session)] = self._fetch(_BEGIN)
        self._ahead = now - time.time()
        #: Behind a pooler a lock could not be found again.
        self._is_direct = pid == self._connection.info.backend_pid
        #: What stands in comments for this connection: while it is there, they are in use.
        self._session = f", by session {session}" if self._is_direct else ""
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._connection = None

    @property
    def description(self) -> str:
        """The server, by its host and port or its socket."""
        info = self._connection.info
        return f"the server at {info.host}:{info.port}"

    @property
    def is_near(self) -> bool:
        """Whether the connection goes to a socket of this machine, or to a loopback address."""
        return _is_near(self._connection.fileno())

    def _address_of(self, name: str) -> str:
        return libpq_url({**self._parameters, "dbname": name})

    # Making and dropping ---------------------------------------------------------------------

    def create(self) -> str:
        """Make an empty scratch database with the encoding and the locale of this database."""
        name = new_name(SCRATCH, self._now())
        with self._reporting(_MAKING):
            self._create(name, self._like_own(), self._told("scratch database"))
        return self._address_of(name)

    def drop(self, address: str) -> None:
        """Drop a scratch database, and end the sessions in it."""
        name = str(self._driver.parsed(address).get("dbname", ""))
        if not name.startswith(SCRATCH):
            raise ScratchDatabaseError(f"{name} is no scratch database of flux's: it stays")
        with self._reporting(f"cannot drop the scratch database {name}"):
            self._drop(name, " WITH (FORCE)")

    def sweep(self) -> list[str]:
        """Drop what is older than an hour and not in use. Ends no session."""
        with self._reporting("cannot look for scratch databases"):
            found = [*self._ours(SCRATCH), *self._ours(BUILDING)]
        latest = self._now() - LEFT_AFTER
        left = [
            one.name
            for one in found
            if made_at(one.name) and one.made and one.made < latest and not one.in_use
        ]
        return [name for name in left if self._try_to_drop(name)]

    def _create(self, name: str, how: str, comment: str) -> None:
        try:
            self._patiently(f"CREATE DATABASE {self._quoted(name)}{how}")
            self._comment(name, comment)
        except self._driver.error:
            raise
        except BaseException:  # Ctrl-C, with nobody who would know the name
            self._try_to_drop(name)
            raise

    def _drop(self, name: str, how: str = "") -> None:
        # What FORCE does not end, such as a subscription, does not go away by waiting.
        self._patiently(f"DROP DATABASE IF EXISTS {self._quoted(name)}{how}", wait=_FORCED_FOR)

    def _try_to_drop(self, name: str) -> bool:
        """Drop a database that nobody is connected to; False where it is another's, or gone."""
        try:
            self._run(f"DROP DATABASE {self._quoted(name)}")
        except self._driver.error:
            if self._connection.closed:
                raise
            return False
        return True

    def _like_own(self) -> str:
        """How to make a database with this one's encoding and locale, behind its name."""
        if self._how is None:
            rows = [json.loads(row) for (row,) in self._fetch(_DATABASES)]
            self._how = _how_to_make(rows[0], rows[-1], self._literal)
        return self._how

    def _ours(self, prefix: str) -> list[_Ours]:
        return [_Ours(*row) for row in self._fetch(_OURS.format(prefix))]

    def _told(self, what: str) -> str:
        """What a comment tells: what it is, when it was made, and by whom."""
        moment = datetime.fromtimestamp(int(self._now()), timezone.utc)
        return f"flux: {what}, made {moment:%Y-%m-%dT%H:%M:%SZ} by {owner()}{self._session}"

    def _now(self) -> float:
        return time.time() + self._ahead

    # Templates -------------------------------------------------------------------------------

    def clone(
        self,
        key: str,
        build: Callable[[str], None],
        *,
        project: str = "",
        keep: int = KEPT_TEMPLATES,
    ) -> str:
        """Copy the template of that key, in one statement where it is there; see `ScratchPlace`.

        A template is of one role, one locale and the settings of the address, too: its tables
        belong to who has built it, and lie where the `search_path` was.
        """
        check_key(key)
        with self._reporting(_MAKING):
            of = digest(self._role, self._like_own(), self._connection.info.options)
        template = f"{TEMPLATE}{key}_{of}"
        while True:
            name = new_name(SCRATCH, self._now())
            with self._reporting(_MAKING):
                try:
                    how = f" TEMPLATE {self._quoted(template)}"
                    self._create(name, how, self._told("scratch database"))
                    return self._address_of(name)
                except self._driver.error as error:
                    if sqlstate(error) != _MISSING:
                        raise
            self._make_template(template, build, project, keep)

    def _make_template(
        self, template: str, build: Callable[[str], None], project: str, keep: int
    ) -> None:
        with self._alone(template):
            name = new_name(BUILDING, self._now())
            with self._reporting(_BUILDING):
                if any(one.name == template for one in self._ours(template)):
                    return
                self._create(name, self._like_own(), self._told("half a template"))
            try:
                build(self._address_of(name))
                with self._reporting(_BUILDING):
                    self._publish(name, template, project)
            except BaseException:
                with suppress(self._driver.error):
                    self._drop(name, " WITH (FORCE)")
                raise
            with self._reporting("cannot drop old templates"):
                self._drop_older_than(template, project, keep)

    def _publish(self, name: str, template: str, project: str) -> None:
        """Give what was built the name of the template; all of it, or nothing."""
        told = self._told("template") + f", for {project}"
        try:
            self._patiently(
                f"ALTER DATABASE {self._quoted(name)} ALLOW_CONNECTIONS false; "
                f"COMMENT ON DATABASE {self._quoted(name)} IS {self._literal(told)}; "
                f"ALTER DATABASE {self._quoted(name)} RENAME TO {self._quoted(template)}"
            )
        except self._driver.error as error:
            if sqlstate(error) != _EXISTS:
                raise
            self._drop(name)  # by way of another database, another process was faster

    def _drop_older_than(self, newest: str, project: str, keep: int) -> None:
        """Drop a project's templates but the newest, and as many others as are to be kept."""
        others = [one for one in self._ours(TEMPLATE) if one.project == project]
        others = [one for one in others if one.name != newest]
        others.sort(key=lambda one: one.made or 0, reverse=True)
        for one in others[keep - 1 :]:
            self._try_to_drop(one.name)

    @contextmanager
    def _alone(self, template: str) -> Iterator[None]:
        """Keep other processes from building the same template meanwhile."""
        if not self._is_direct:
            yield  # the slower one finds the name taken
            return
        key = f"pg_catalog.hashtextextended({self._literal(template)}, 0)"
        patience = Patience(self._wait)
        with self._reporting(_BUILDING):
            while self._fetch(f"SELECT pg_catalog.pg_try_advisory_lock({key})") != [(True,)]:
                if patience.is_over:
                    raise ScratchDatabaseError(
                        f"another process still builds the template {template}, "
                        f"after {patience.waited:.0f} s",
                        hint="wait for it to end, or wait longer: lock_wait in the configuration",
                    )
                patience.pause()
        try:
            yield
        finally:
            with suppress(self._driver.error):
                self._fetch(f"SELECT pg_catalog.pg_advisory_unlock({key})")

    # Beyond ----------------------------------------------------------------------------------

    def beyond(self) -> Fingerprint:
        """The roles with their memberships and settings, and the tablespaces. Read-only."""
        with self._reporting("cannot read the roles and the tablespaces"):
            return read_beyond(self._fetch)

    # The connection --------------------------------------------------------------------------

    def _quoted(self, name: str) -> str:
        return self._driver.identifier(self._connection, name)

    def _literal(self, text: str) -> str:
        return self._driver.literal(self._connection, text)

    def _comment(self, name: str, text: str) -> None:
        self._run(f"COMMENT ON DATABASE {self._quoted(name)} IS {self._literal(text)}")

    def _run(self, sql: str) -> None:
        with self._driver.cursor(self._connection) as cursor:
            cursor.execute(sql)

    def _fetch(self, sql: str) -> list[Any]:
        with self._driver.cursor(self._connection) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def _patiently(self, sql: str, wait: float = _BUSY_FOR) -> None:
        """Run a statement, again while a database that it needs is in use, for `wait` seconds."""
        patience = Patience(wait)
        while True:
            try:
                return self._run(sql)
            except self._driver.error as error:
                if sqlstate(error) != _IN_USE or patience.is_over:
                    raise
            patience.pause()

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        """Turn what the driver raises into a `ScratchDatabaseError` that says `what`."""
        try:
            yield
        except self._driver.error as error:
            told = report(error, self._driver)
            hint = told.hint
            if sqlstate(error) == INSUFFICIENT_PRIVILEGE and what in (_MAKING, _BUILDING):
                hint = (
                    f"ALTER ROLE {self._quoted(self._role)} CREATEDB, or name a server whose "
                    "databases may come and go: --shadow-url, or shadow_url in the configuration"
                )
            detail = f" ({told.detail})" if told.detail else ""
            raise ScratchDatabaseError(f"{what}: {told.message}{detail}", hint=hint) from error


def _how_to_make(
    own: dict[str, Any], template1: dict[str, Any], literal: Callable[[str], str]
) -> str:
    """What stands behind CREATE DATABASE NAME for one like `own`; nothing where template1 is. Pure.

    The rows are those of pg_database; each version of PostgreSQL has other columns.
    """
    columns = (
        *("encoding", "datcollate", "datctype", "datlocprovider"),
        *("daticulocale", "datlocale", "daticurules"),
    )
    if all(own.get(column) == template1.get(column) for column in columns):
        return ""
    parts = {
        "ENCODING": own["encoding"],
        "LC_COLLATE": own["datcollate"],
        "LC_CTYPE": own["datctype"],
    }
    provider = own.get("datlocprovider")  # since PostgreSQL 15
    locale = own.get("daticulocale") or own.get("datlocale")
    if provider is not None:
        parts["LOCALE_PROVIDER"] = _PROVIDERS[provider]
    if provider == "i":
        parts |= {"ICU_LOCALE": locale, "ICU_RULES": own.get("daticurules")}
    if provider == "b":
        parts["BUILTIN_LOCALE"] = locale
    written = [f"{name} {literal(value)}" for name, value in parts.items() if value]
    return " ".join([" TEMPLATE template0", *written])


_PROVIDERS: Final = {"c": "libc", "i": "icu", "b": "builtin"}


def _is_near(fileno: int) -> bool:
    """Whether the other end of a connection is on this machine, whatever name it was found by."""
    from ipaddress import ip_address
    from socket import AF_INET, AF_INET6, fromfd

    with fromfd(fileno, -1, -1) as peer:  # -1: as it is
        if peer.family not in (AF_INET, AF_INET6):
            return True
        address = ip_address(peer.getpeername()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
