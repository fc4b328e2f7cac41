"""Examining a PostgreSQL database for `flux doctor`: facts by a few queries, findings from facts.

Reads only. Each query may take seconds at most, and takes no lock that anybody waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flux.backends.postgres_lock import CAN_CHECK_CLIENT, CAN_MARK, Holder
from flux.findings import Finding, listed, ok, problem, warning

if TYPE_CHECKING:
    from flux.backends.postgres import PostgresBackend

#: The major versions that flux is meant for.
OLDEST, NEWEST = 14, 18
#: Sessions that a batch has beside its first one: of the lock, and of the watcher.
MORE_SESSIONS = 2
#: Seconds after which a transaction of somebody else is told of, and below which a limit on idle
#: sessions may well be met.
LONG = 60
_WITHIN = "SET LOCAL statement_timeout = 5000;\n"

_SETTINGS = (
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "standard_conforming_strings",
    "statement_timeout",
    "transaction_timeout",
)


class Rights(NamedTuple):
    """What the user may do; names are quoted as SQL wants them.

    `schema` and `table` are those of the history, `state_table` is the one beside it; the rights
    on a table are None where it is not there. `creates_in` is the schema in which new tables go,
    None where the search_path names none.
    """

    user: str
    schema: str
    table: str
    state_table: str
    may_create_schema: bool
    has_schema: bool
    uses_schema: bool
    creates_in_schema: bool
    table_rights: bool | None
    state_rights: bool | None
    creates_in: str | None
    may_create_there: bool | None
    sees_sessions: bool


class Server(NamedTuple):
    """What the server is. `free` counts the connections that may still be opened."""

    number: int
    version: str
    pid: int
    is_replica: bool
    encoding: str
    can_mark: bool
    checks_client: bool
    free: int


class Setting(NamedTuple):
    """One setting of the session, and where it comes from: `user`, `database`, `client`, …"""

    value: str
    source: str

    @property
    def seconds(self) -> float:
        """A time, which the server gives in milliseconds."""
        return int(self.value) / 1000


class OpenTransaction(NamedTuple):
    """A transaction of another session; `pid` is None for a prepared one, which has a name."""

    pid: int | None
    name: str | None
    state: str | None
    seconds: float


def examine(backend: PostgresBackend) -> list[Finding]:
    """Everything about the database of an open backend. Read-only."""
    rights = Rights(*backend.fetch(_WITHIN + _rights_sql(backend))[0])
    server = Server(*backend.fetch(_WITHIN + _SERVER)[0])
    # Without a timeout of ours, which would be among them.
    settings = {name: Setting(*rest) for name, *rest in backend.fetch(_SETTINGS_SQL)}
    is_direct = server.pid == backend.dbapi.info.backend_pid
    lock = _fetch_holder(backend, backend.lock.holder)
    fence = _fetch_holder(backend, backend.lock.fence_holder)
    own = {holder.pid for holder in (lock, fence) if holder is not None}
    transactions = [OpenTransaction(*row) for row in backend.fetch(_WITHIN + _TRANSACTIONS)]
    invalid = [name for (name,) in backend.fetch(_WITHIN + _INVALID_INDEXES)]
    return [
        ok("driver", f"{backend.driver.name} {backend.driver.version}"),
        *describe_server(server),
        *describe_settings(settings, rights.user, is_direct=is_direct),
        *describe_rights(rights),
        *describe_way(server, is_direct=is_direct),
        *describe_sessions([one for one in transactions if one.pid not in own]),
        *describe_indexes(invalid),
        *describe_lock(lock, fence, backend.lock_wait),
    ]


# Findings from facts, all pure -----------------------------------------------------------------


def describe_server(server: Server) -> list[Finding]:
    """What the server's version and kind mean for migrations."""
    major = server.number // 10000
    name = f"PostgreSQL {server.version}"
    if OLDEST <= major <= NEWEST:
        found = [ok("server", name)]
    else:
        which = "older" if major < OLDEST else "newer"
        found = [
            warning(
                "server",
                f"{name} is {which} than the versions that flux is tested with, "
                f"{OLDEST} to {NEWEST}",
                "upgrade the server" if major < OLDEST else "look for a newer flux",
            )
        ]
    if server.is_replica:
        found.append(
            problem(
                "server",
                "this server is a replica, which cannot be written",
                "give flux the address of the primary; with several hosts in the address, "
                "target_session_attrs=read-write finds it",
            )
        )
    if server.encoding != "UTF8":
        found.append(
            warning(
                "server",
                f"the database's encoding is {server.encoding}: characters that it lacks make a "
                "migration fail",
                "a database of its own with ENCODING 'UTF8' takes all",
            )
        )
    if not server.can_mark:
        found.append(
            warning(
                "server",
                "plpgsql is not there for everybody: where the server gives no position, an error "
                "does not name the statement that failed",
                "CREATE EXTENSION plpgsql; GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC",
            )
        )
    if not server.checks_client:
        found.append(
            warning(
                "server",
                "this server does not notice in mid-statement that its client is gone: what a "
                "killed flux was running goes on to its end, and the next run waits for that",
                "servers on Linux can, from PostgreSQL 14 on",
            )
        )
    return found


def describe_settings(settings: dict[str, Setting], user: str, *, is_direct: bool) -> list[Finding]:
    """What is set for the role, the database or the server, and is in the way."""

    def change(name: str, value: str) -> str:
        source = settings[name].source
        if source == "client":
            return f"give {name}={value} where it comes from: PGOPTIONS, or options in the address"
        return f"ALTER ROLE {user} SET {name} = {value} (now it comes from: {source})"

    def seconds(name: str) -> float:
        return settings[name].seconds if name in settings else 0

    found = []
    if settings["default_transaction_read_only"].value == "on":
        name = "default_transaction_read_only"
        found.append(
            problem("settings", f"{name} is on: nothing can be written", change(name, "off"))
        )
    if settings["standard_conforming_strings"].value == "off":
        name = "standard_conforming_strings"
        found.append(
            warning(
                "settings", f"{name} is off: flux reads files as if it were on", change(name, "on")
            )
        )
    if limit := seconds("transaction_timeout"):
        found.append(
            warning(
                "settings",
                f"transaction_timeout ends every migration that takes more than {limit:g} s",
                change("transaction_timeout", "0"),
            )
        )
    for name, what in (
        ("idle_in_transaction_session_timeout", "a Python migration that is busy elsewhere for"),
        ("idle_session_timeout", "a batch whose question at the terminal is not answered within"),
    ):
        if 0 < (limit := seconds(name)) < LONG:
            found.append(warning("settings", f"{name} ends {what} {limit:g} s", change(name, "0")))
    if not is_direct:
        found += [
            warning(
                "settings",
                f"{name} is {seconds(name):g} s, and behind a pooler it holds for files without a "
                "transaction, too: an index build may be ended by it",
                f"{change(name, '0')}, or give flux the address of the server itself",
            )
            for name in ("statement_timeout", "lock_timeout")
            if seconds(name)
        ]
    return found or [ok("settings", "none is in the way")]


def describe_rights(rights: Rights) -> list[Finding]:
    """Whether the history can be kept, tables be made, and other sessions be seen."""
    user, schema = rights.user, rights.schema
    found = []
    if not rights.has_schema and not rights.may_create_schema:
        found.append(
            problem(
                "rights",
                f"there is no schema {schema} for the history, and {user} may not create it",
                f"CREATE SCHEMA {schema} AUTHORIZATION {user}, or set migrations_schema in "
                "[backend] to one that is there",
            )
        )
    elif rights.has_schema and not rights.uses_schema:
        found.append(
            problem(
                "rights",
                f"{user} may not use the schema {schema}, in which the history is",
                f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}",
            )
        )
    elif rights.has_schema and rights.table_rights is None and not rights.creates_in_schema:
        found.append(
            problem(
                "rights",
                f"{user} may not create the history table in the schema {schema}",
                f"GRANT CREATE ON SCHEMA {schema} TO {user}, or set migrations_schema in [backend] "
                "to a schema of its own",
            )
        )
    for is_allowed, table in (
        (rights.table_rights, rights.table),
        (rights.state_rights, rights.state_table),
    ):
        if is_allowed is False:
            found.append(
                problem(
                    "rights",
                    f"{user} may not read and write {table}",
                    f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {user}",
                )
            )
    if rights.creates_in is None:
        found.append(
            warning(
                "rights",
                "no schema of the search_path is there: a table whose name has no schema cannot be "
                "created",
                f"ALTER ROLE {user} SET search_path = a schema that is there",
            )
        )
    elif not rights.may_create_there:
        found.append(
            warning(
                "rights",
                f"{user} may not create anything in the schema {rights.creates_in}, where tables "
                "go whose names have no schema",
                f"GRANT CREATE ON SCHEMA {rights.creates_in} TO {user}",
            )
        )
    if not found:
        found.append(ok("rights", f"{user} may write the history and create tables"))
    if not rights.sees_sessions:
        found.append(
            ok(
                "rights",
                "of other users' sessions that are in the way, only the pid can be told",
                f"GRANT pg_read_all_stats TO {user} shows who they are and what they run",
            )
        )
    return found


def describe_way(server: Server, *, is_direct: bool) -> list[Finding]:
    """Whether a pooler is in between, and whether a batch gets the connections that it needs."""
    if not is_direct:
        return [
            warning(
                "pooler",
                "a pooler is in between: in files without a transaction, timeouts, settings and "
                "Python functions are refused",
                "give flux the address of the server itself for those; all else works, and the "
                "pool needs two sessions for it",
            )
        ]
    if server.free < MORE_SESSIONS:
        return [
            warning(
                "connections",
                f"the server or the role has room for {max(server.free, 0)} more connections, and "
                "a batch has up to three: without a second one, files without a transaction are "
                "refused; without a third, nobody tells what a long statement waits for",
                "raise max_connections or the CONNECTION LIMIT, or end sessions that are idle",
            )
        ]
    return [ok("pooler", "none is in between"), ok("connections", "there is room for a batch")]


def describe_sessions(transactions: Sequence[OpenTransaction]) -> list[Finding]:
    """Transactions of others that a migration may have to wait for."""
    found = []
    for one in transactions:
        if one.pid is None:
            found.append(
                warning(
                    "sessions",
                    f"the prepared transaction {one.name} has been open for {_time(one.seconds)}, "
                    "and keeps its locks until somebody ends it",
                    "COMMIT PREPARED or ROLLBACK PREPARED, with that name",
                )
            )
        elif one.seconds >= LONG:
            who = f"pid {one.pid}" + (f" ({one.name})" if one.name else "")
            state = f", {one.state}" if one.state else ""
            found.append(
                warning(
                    "sessions",
                    f"{who} has a transaction open for {_time(one.seconds)}{state}: an ALTER TABLE "
                    "may have to wait for it, and CREATE INDEX CONCURRENTLY has to",
                    f"let it end, or end it: SELECT pg_terminate_backend({one.pid})",
                )
            )
    return found


def describe_lock(lock: Holder | None, fence: Holder | None, wait: float) -> list[Finding]:
    """Who runs migrations now, or has not yet ended; `wait` is `lock_wait`, in seconds."""
    waits = f"`flux apply` waits for it, for up to {wait:g} s"
    if lock is not None:
        return [warning("lock", f"{lock} is running migrations on this database now", waits)]
    if fence is not None:
        return [
            warning("lock", f"{fence}, left by a run that was cut off, is still at work", waits)
        ]
    return [ok("lock", "nobody holds it")]


def describe_indexes(invalid: Sequence[str]) -> list[Finding]:
    """Indexes that no query uses."""
    if not invalid:
        return []
    return [
        warning(
            "indexes",
            f"INVALID, so that no query uses them, while every write keeps them: {listed(invalid)}",
            f"REINDEX INDEX CONCURRENTLY {invalid[0]}, or DROP INDEX CONCURRENTLY {invalid[0]}",
        )
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 2 * LONG else f"{seconds / 60:.0f} min"


# Queries ---------------------------------------------------------------------------------------


def _fetch_holder(backend: PostgresBackend, query: str) -> Holder | None:
    rows = backend.fetch(_WITHIN + query)
    return Holder(*rows[0]) if rows else None


def _rights_sql(backend: PostgresBackend) -> str:
    def rights_on(table: str, *kinds: str) -> str:
        regclass = f"pg_catalog.to_regclass({backend.literal(table)})"
        # A list in one text would ask whether any of them is there.
        has = " AND ".join(
            f"pg_catalog.has_table_privilege({regclass}, '{kind}')" for kind in kinds
        )
        return f"CASE WHEN {regclass} IS NOT NULL THEN {has} END"

    name = backend.literal(backend.schema)
    schema = f"(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {name})"
    return f"""\
SELECT pg_catalog.quote_ident(current_user), pg_catalog.quote_ident({name}),
    {backend.literal(backend.table)}, {backend.literal(backend.state_table)},
    pg_catalog.has_database_privilege(current_database(), 'CREATE'),
    {schema} IS NOT NULL,
    coalesce(pg_catalog.has_schema_privilege({schema}, 'USAGE'), false),
    coalesce(pg_catalog.has_schema_privilege({schema}, 'CREATE'), false),
    CASE WHEN pg_catalog.has_schema_privilege({schema}, 'USAGE')
        THEN {rights_on(backend.table, "SELECT", "INSERT", "DELETE")} END,
    CASE WHEN pg_catalog.has_schema_privilege({schema}, 'USAGE')
        THEN {rights_on(backend.state_table, "SELECT", "INSERT", "UPDATE", "DELETE")} END,
    pg_catalog.quote_ident(pg_catalog.current_schema()),
    pg_catalog.has_schema_privilege(pg_catalog.current_schema(), 'CREATE'),
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"""


_IN_USE = "SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid IS NOT NULL"
#: A limit of -1 is none.
_SERVER = f"""\
SELECT pg_catalog.current_setting('server_version_num')::int,
    pg_catalog.current_setting('server_version'), pg_catalog.pg_backend_pid(),
    pg_catalog.pg_is_in_recovery(), pg_catalog.pg_encoding_to_char(d.encoding),
    {CAN_MARK}, {CAN_CHECK_CLIENT},
    CASE WHEN r.rolsuper THEN pg_catalog.current_setting('max_connections')::int - ({_IN_USE})
    ELSE least(
        pg_catalog.current_setting('max_connections')::int
            - pg_catalog.current_setting('superuser_reserved_connections')::int
            - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int
            - ({_IN_USE}),
        nullif(d.datconnlimit, -1) - ({_IN_USE} AND a.datid = d.oid),
        nullif(r.rolconnlimit, -1) - ({_IN_USE} AND a.usesysid = r.oid)
    ) END::int
FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
WHERE d.datname = pg_catalog.current_database() AND r.rolname = session_user"""

_SETTINGS_SQL = (
    "SELECT name, setting, source FROM pg_catalog.pg_settings WHERE name IN ("
    + ", ".join(f"'{name}'" for name in _SETTINGS)
    + ")"
)

#: Autovacuum, which gives way, is left out.
_TRANSACTIONS = """\
SELECT a.pid, nullif(a.application_name, ''), a.state,
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8
FROM pg_catalog.pg_stat_activity a
WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
    AND a.xact_start IS NOT NULL AND a.backend_type = 'client backend'
UNION ALL
SELECT NULL, p.gid, NULL, extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::float8
FROM pg_catalog.pg_prepared_xacts p WHERE p.database = pg_catalog.current_database()
ORDER BY 4 DESC LIMIT 10"""

#: Not those that are being built, nor those of partitioned tables, which are so until each
#: partition has its own.
_INVALID_INDEXES = """\
SELECT i.indexrelid::pg_catalog.regclass::text
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relkind = 'i'
    AND NOT pg_catalog.pg_is_other_temp_schema(c.relnamespace)
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid
    )
ORDER BY 1"""
