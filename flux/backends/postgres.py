"""PostgreSQL, by psycopg2 or psycopg 3: the connection, the lock and the history.

`postgres_run` runs the scripts. What only a run needs is imported by it: most starts of flux find
nothing to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial

from flux import address
from flux.backends.base import UNFINISHED, MigrationBackend
from flux.backends.dbapi import unavailable
from flux.backends.postgres_driver import (
    IDLE,
    Driver,
    Meanwhile,
    choose,
    driver_of,
    is_plain,
    require_one,
)
from flux.backends.postgres_errors import (
    INSUFFICIENT_PRIVILEGE,
    LOCK_NOT_AVAILABLE,
    UNDEFINED_TABLE,
    EncodingError,
    report,
    sqlstate,
)
from flux.backends.postgres_history import HistorySQL, applied
from flux.backends.postgres_lock import (
    BEGIN,
    OWN_SESSION,
    Held,
    LockSQL,
    running,
    still_there,
)
from flux.backends.postgres_session import Session
from flux.backends.postgres_settings import (
    DEFAULT_LOCK_ID,
    DEFAULT_LOCK_RETRIES,
    DEFAULT_LOCK_TIMEOUT,
    DEFAULT_SCHEMA,
    DEFAULT_TABLE,
    NAME_BYTES,
    read_settings,
)
from flux.backends.signals import ErrorReport
from flux.config import FluxConfig
from flux.exceptions import (
    ConnectionStateError,
    DatabaseUnavailableError,
    FluxMigrationException,
    InvalidConfigurationError,
    Problem,
)
from flux.journal import ENDED, Entry, read_entries
from flux.migration import AppliedMigration, Migration, Repeatable, Script
from flux.plan import DatabaseState, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from flux.backends.postgres_holder import LockHolder
    from flux.backends.postgres_parts import Parts
    from flux.backends.postgres_scratch import PostgresScratchPlace
    from flux.contents import Column
    from flux.findings import Finding
    from flux.fingerprint import Fingerprint
    from flux.journal import Direction
    from flux.statements import Dialect, MetaCommand, Statement
    from flux.units import Way

#: Seconds that one of many tries to connect may take.
_TRY_FOR = 5


class PostgresBackend(MigrationBackend):
    """A PostgreSQL database, over a connection of its own or one that was handed in."""

    name: ClassVar[str] = "postgres"
    dialect: ClassVar[Dialect] = "postgres"
    directives: ClassVar[frozenset[str]] = frozenset(
        {"no_transaction", "on_change", "lock_timeout", "statement_timeout"}
    )
    cancellable: ClassVar[bool] = True
    config_example: ClassVar[str] = f"""\
# driver = "psycopg2"              # or "psycopg"; the first of the two that is installed
# migrations_schema = "{DEFAULT_SCHEMA}"
# migrations_table = "{DEFAULT_TABLE}"
# migrations_lock_id = {DEFAULT_LOCK_ID}        # advisory lock; one number for each project
# lock_timeout = {DEFAULT_LOCK_TIMEOUT:g}                 # seconds to wait for a lock, 0: any
# lock_retries = {DEFAULT_LOCK_RETRIES}                # how often it then lets go and comes again
# statement_timeout = 0            # seconds that one statement may take, 0: any"""
    url_example: ClassVar[str] = "postgresql://${DB_USER}:${DB_PASSWORD}@localhost:5432/app"

    def __init__(
        self,
        dsn: str | None,
        *,
        driver: Driver,
        schema: str = DEFAULT_SCHEMA,
        table: str = DEFAULT_TABLE,
        lock_id: int = DEFAULT_LOCK_ID,
        lock_wait: float = 300,
        lock_timeout: float = DEFAULT_LOCK_TIMEOUT,
        lock_retries: int = DEFAULT_LOCK_RETRIES,
        statement_timeout: float = 0,
        connection: Any = None,
    ) -> None:
        """`dsn` is a libpq URI or keyword string, or None with a `connection` handed in.

        Times are in seconds; a timeout of 0 is none.
        """
        self.driver = driver
        self.driver_error = driver.error
        self.schema = schema
        self.table_name = table
        self.lock_wait = lock_wait
        self.lock_timeout = lock_timeout
        self.lock_retries = lock_retries
        self.statement_timeout = statement_timeout
        self._dsn = dsn
        self._handed_in = connection
        #: How to connect once more beside a connection that was handed in.
        self._parameters: dict[str, Any] = {}
        #: Holds the lock of the batch that is under way, or had that of the last one.
        self._holder: LockHolder
        self.lock = LockSQL(lock_id)
        self.session: Session
        self._parts: Parts
        self._session_name: str | None = None
        #: The lock of the batch that is under way.
        self.held = Held()

    @classmethod
    def require_driver(cls) -> None:
        """Look whether psycopg2 or psycopg 3 is installed. Raises `ImportError`."""
        require_one()

    @classmethod
    def from_config(cls, config: FluxConfig, connection_uri: str) -> PostgresBackend:
        """For a libpq URI or keyword string."""
        dsn = address.libpq_address(connection_uri)
        settings = read_settings(config)
        return cls(dsn, driver=choose(config.backend_config.get("driver")), **settings)

    @classmethod
    def for_connection(cls, config: FluxConfig, connection: Any) -> PostgresBackend:
        """For an open connection of either driver, which is left as it was found.

        Raises `ConnectionStateError` where it is closed, asynchronous, in pipeline mode or inside
        a transaction.
        """
        driver = driver_of(connection)
        if connection.closed:
            raise ConnectionStateError("this connection is closed")
        driver.check(connection)
        if connection.info.transaction_status != IDLE:
            raise ConnectionStateError(
                "this connection is inside a transaction, which a migration would commit",
                hint="commit or roll back before handing it to flux",
            )
        return cls(None, driver=driver, connection=connection, **read_settings(config))

    # The connection --------------------------------------------------------------------------

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """The connection, in autocommit: flux writes its own BEGIN."""
        if self._handed_in is not None:
            with self.driver.borrowing(self._handed_in):
                self.dbapi = self._handed_in
                self.session = Session.borrowed(self)
                # Now, because a connection that was closed tells nothing of itself.
                self._parameters = self.driver.parameters(self.dbapi)
                self._name_tables()
                yield self.dbapi
            return
        with closing(self._connect(self.while_connecting)) as self.dbapi:
            self.session = Session.own()
            self._name_tables()
            yield self.dbapi

    def _name_tables(self) -> None:
        def quoted(table: str) -> str:
            return ".".join(map(self.identifier, (self.schema, table)))

        self.table = quoted(self.table_name)
        stem = self.table_name.encode()[: NAME_BYTES - len("_state")].decode(errors="ignore")
        self.state_table = quoted(stem + "_state")
        self.sql = HistorySQL(self.table, self.state_table, self.literal)

    def _connect(self, meanwhile: Meanwhile = None, **options: Any) -> Any:
        if self._dsn is None:
            return self.driver.connect("", meanwhile, **{**self._parameters, **options})
        options = {"fallback_application_name": "flux", "client_encoding": "utf8", **options}
        if self.connect_wait and self.dbapi is None and not address.has_timeout(self._dsn):
            # So that the wait ends in time, and Ctrl-C ends it, also where nothing answers.
            options["connect_timeout"] = max(2, min(_TRY_FOR, int(self.connect_wait)))
        try:
            return self.driver.connect(self._dsn, meanwhile, **options)
        except self.driver.address_error:  # it does not parse
            failure: FluxMigrationException = address.unreadable(self._dsn)
        except self.driver.error as error:
            message = address.without_secrets(self.driver.words(error), self._dsn)
            hint = None
            if re.search(r'database ".*" does not exist', message):
                hint = "create it first: flux makes tables, not databases"
            failure = DatabaseUnavailableError(
                f"cannot connect to {address.redact(self._dsn)}: {message}", hint=hint
            )
        raise failure  # here, without the driver's own error as its context: it may quote a secret

    def cursor(self) -> Any:
        """A plain cursor, whatever the connection's own factory gives."""
        return self.driver.cursor(self.dbapi)

    def identifier(self, name: str) -> str:
        """A name as an SQL identifier, quoted by the driver."""
        return self.driver.identifier(self.dbapi, name)

    def literal(self, text: str) -> str:
        """A text as an SQL literal, quoted by the driver where there is something to quote."""
        if is_plain(text):
            return f"'{text}'"
        try:
            return self.driver.literal(self.dbapi, text)
        except UnicodeEncodeError as error:
            raise EncodingError(error) from error

    # The lock --------------------------------------------------------------------------------

    @contextmanager
    def migration_lock(self) -> Iterator[None]:
        """Hold the lock on a second connection; without one, each migration takes it itself."""
        from flux.backends.postgres_holder import LockHolder

        self._holder = LockHolder(self)
        try:
            with self.reporting("cannot take the migration lock"):
                self.wait_for_lock(self._holder.try_to_acquire, self._holder.describe)
            from flux.backends.postgres_parts import Parts
            from flux.backends.postgres_watch import SessionWatcher

            self.held = self._holder.held
            self._parts = Parts(self)
            if self.held.pid is not None:
                connect = partial(self.open_another, connect_timeout=2)  # seconds
                self.watcher = SessionWatcher(
                    self.report, self.driver, connect, self.held.runs_in, self.lock.at_fence
                )
            yield
        finally:
            from flux.backends.watch import Watcher

            self._holder.free()
            self.held, self.watcher = Held(), Watcher(self.report)

    def open_another(self, meanwhile: Meanwhile = None, **options: Any) -> Any:
        """A connection beside the first; None where the server or a pool allows no other."""
        try:
            return self._connect(meanwhile, **options)
        except (self.driver.error, DatabaseUnavailableError):
            return None

    # Transactions ----------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of flux's own, behind the fence."""
        self.run_sql(BEGIN + self.lock.take_fence)
        try:
            yield
            self.run_sql("COMMIT")
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        if self.dbapi.closed:
            return
        if self.session.settings is None and self.dbapi.info.transaction_status != IDLE:
            # In one message: behind a pooler, the next one may go to another session.
            self.run_sql("ROLLBACK;\n" + self.session.restore)
        self.dbapi.rollback()  # what the driver has begun; in autocommit, nothing
        if self.dbapi.info.transaction_status != IDLE:
            self.run_sql("ROLLBACK")

    def cancel(self) -> None:
        """Ask the server to end the running statement. Called from another thread."""
        with suppress(self.driver.error):  # it may have ended, or the server may be gone
            self.dbapi.cancel()

    def outcome_is_unknown(self) -> bool:
        """Whether the connection broke, so that a COMMIT may or may not have arrived."""
        return bool(self.dbapi.closed)

    def look_again(self) -> DatabaseState | None:
        """Free the lock; then the state, read on a new connection behind the fence."""
        from flux.backends.postgres_outcome import read_state_behind_fence

        ran_in = self.held.runs_in
        self._holder.free()
        return read_state_behind_fence(self, ran_in)

    # The history -----------------------------------------------------------------------------

    def read_state(self) -> DatabaseState:
        """The history and what flux remembers, in one query where nothing is remembered."""
        with self.reporting("cannot read the history"):
            try:
                try:
                    rows = self.fetch(f"SET LOCAL lock_timeout = 1000;\n{self.sql.read}")
                except self.driver.error as error:
                    if sqlstate(error) != LOCK_NOT_AVAILABLE:
                        raise
                    self.announce("waiting for the history: another session has it locked")
                    rows = self.fetch(self.sql.read)
            except self.driver.error as error:
                if sqlstate(error) != UNDEFINED_TABLE:
                    raise
                self._refuse_names_in_lower_case()
                return DatabaseState()
            remembered = self.read_memory() if rows[0][3] else {}
            if read_entries(remembered.items()):
                # Once more: another process may have gone on between the two.
                rows = self.fetch(self.sql.read)
        return self.make_state(applied(rows), remembered)

    def _refuse_names_in_lower_case(self) -> None:
        """Begin no new history beside the one that flux-migrations 0.0.3, unquoted, has begun."""
        unquoted = f"{self.schema}.{self.table_name}"
        if unquoted == unquoted.lower() or not re.fullmatch(r"[A-Za-z_]\w*\.\w+", unquoted):
            return
        if self.fetch(f"SELECT pg_catalog.to_regclass({self.literal(unquoted)})") != [(None,)]:
            raise InvalidConfigurationError(
                f"the history is in {unquoted.lower()}: flux-migrations 0.0.3 did not quote these "
                "names, and the server put them in lower case",
                hint="write migrations_schema and migrations_table in [backend] in lower case",
            )

    def read_memory(self) -> dict[str, str]:
        """The rows of the table beside the history, without the fence, which may be taken."""
        return dict(self.fetch(f"SELECT name, value FROM {self.state_table}"))

    def is_initialized(self) -> bool:
        """Whether the history table is there. Read-only."""
        return self.fetch(f"SELECT pg_catalog.to_regclass({self.literal(self.table)})") != [(None,)]

    def prepare(self, *, history: bool, memory: bool, unfinished: bool) -> None:
        """Create the tables and note the batch, in one round trip where nothing is in the way."""
        message = BEGIN + self.lock.take_fence
        message += self.sql.create if history else ""
        message += self.create_memory_sql() + ";\n" if memory else ""
        message += self.sql.remember(*UNFINISHED) if unfinished else ""
        try:
            self.run_sql(message + "COMMIT")
        except self.driver.error:
            # Step by step, to make the schema too, or to tell what cannot be made.
            self.roll_back()
            super().prepare(history=history, memory=memory, unfinished=unfinished)

    def mark_finished(self) -> None:
        """Note that no batch is under way any more, in one round trip. Writes."""
        with self.reporting("cannot note the end of the batch"):
            self.run_sql(BEGIN + self.lock.take_fence + self.sql.forget(UNFINISHED[:1]) + "COMMIT")

    def initialize(self) -> None:
        """Create the history table, and its schema where there is none."""
        schema = self.identifier(self.schema)
        # CREATE SCHEMA IF NOT EXISTS needs the right to create it even where it exists.
        has_schema = self.fetch(f"SELECT pg_catalog.to_regnamespace({self.literal(schema)})")
        if has_schema == [(None,)]:
            hint = (
                f"CREATE SCHEMA {schema} AUTHORIZATION the user, or set migrations_schema in "
                "[backend] to one that is there"
            )
            with self._creating(f"the schema {schema}", hint):
                self.run_sql(f"CREATE SCHEMA {schema}")
        with self._creating("the history table", self._grant_hint()):
            self.run_sql(self.sql.create)

    def initialize_memory(self) -> None:
        """Create the table beside the history, where a project needs one and it is not there."""
        with self._creating("the table beside the history", self._grant_hint()):
            super().initialize_memory()

    def _grant_hint(self) -> str:
        public = "since PostgreSQL 15 not every user may create tables in public: "
        return (
            (public if self.schema == "public" else "")
            + f"GRANT CREATE ON SCHEMA {self.identifier(self.schema)} TO the user, "
            "or set migrations_schema in [backend] to a schema of its own"
        )

    @contextmanager
    def _creating(self, what: str, hint: str) -> Iterator[None]:
        """Tell which of flux's own things cannot be made; `hint` is for a lack of rights."""
        try:
            yield
        except self.driver.error as error:
            described = self.describe_error(error)
            if sqlstate(error) == INSUFFICIENT_PRIVILEGE:
                described = described._replace(hint=hint)
            raise unavailable(error, described, f"cannot create {what}") from error

    def register_migration(self, migration: Migration) -> None:
        """Write the migration's row."""
        self.run_sql(self.sql.insert(migration))

    def unregister_migration(self, migration: Migration) -> None:
        """Delete the migration's row."""
        self.run_sql(self.sql.delete(migration))

    def get_applied_migrations(self) -> list[AppliedMigration]:
        """The rows of the history. Read-only."""
        return applied(self.fetch(self.sql.read))

    def is_recorded(self, id: str) -> bool:
        """Whether the history holds this id now. Read-only."""
        return bool(self.fetch(f"SELECT 1 FROM {self.table} WHERE id = {self.literal(id)}"))

    def remember(self, name: str, value: str) -> None:
        """Write one row beside the history."""
        self.run_sql(self.sql.remember(name, value))

    # Running ---------------------------------------------------------------------------------

    def run_migration(self, migration: Migration) -> None:
        """Apply one migration and write its row, in one round trip where it is plain text."""
        self._run(migration.script, "apply", migration.id, *self.sql.apply(migration))

    def undo_migration(self, migration: Migration, undo: Script) -> None:
        """Undo one migration and delete its row, as `run_migration` applies it."""
        self._run(undo, "undo", migration.id, *self.sql.undo(migration))

    def count_bundle(self, steps: Sequence[Step]) -> int:
        """How many of the next steps go in one message, at least one. Opens nothing."""
        return self._parts.count_together(steps)

    def run_bundle(self, steps: Sequence[Step], note: Callable[[float], None]) -> None:
        """Carry out steps in one round trip, each in a transaction of its own."""
        if len(steps) == 1:
            super().run_bundle(steps, note)
        else:
            from flux.backends.postgres_bundle import BundleRun

            BundleRun(self, steps, self._parts, note).run()

    def run_repeatable(self, repeatable: Repeatable) -> None:
        """Run one repeatable, as `run_migration` applies a migration."""
        closing = ""
        if repeatable.script.directives.on_change:
            closing = self.sql.remember(*self.last_run_row(repeatable))
        self._run(repeatable.script, "run", repeatable.name, "", closing)

    def _run(self, script: Script, direction: Direction, id: str, guard: str, record: str) -> None:
        if script.directives.no_transaction:
            from flux.backends.postgres_journaled import PostgresJournaledRun

            PostgresJournaledRun(
                self, script, direction, id, guard_sql=guard, record_sql=record
            ).run()
        else:
            from flux.backends.postgres_run import ScriptRun

            ScriptRun(self, script, guard, record).run()

    def apply_migration(self, content: str) -> None:
        """Run SQL text statement by statement, in whatever transaction is open, or none."""
        from flux.backends.postgres_message import single
        from flux.backends.postgres_run import send
        from flux.statements import numbered, split

        pieces = split(content, "postgres")
        statements = numbered(pieces)
        self.watcher.expect([one.statement for one in statements])
        for one in statements:
            self.watcher.reach(one.number)
            send(self, single(one), len(statements))

    # The journal -----------------------------------------------------------------------------

    def way_of(self, statement: Statement) -> Way:
        """How a statement of a script without a transaction runs. Pure."""
        from flux.backends.postgres_journaled import way_of

        return way_of(statement)

    def is_repeatable(self, sql: str) -> bool:
        """Whether a statement may run once more, as VACUUM may. Pure."""
        from flux.backends.postgres_in_doubt import is_repeatable

        return is_repeatable(sql)

    def is_undone_by_error(self, sql: str) -> bool:
        """Whether a statement that has failed has no effect: not what commits as it goes. Pure."""
        from flux.statements import words

        return next(words(sql, "postgres"), "") not in ("CALL", "DO", "")

    def is_in_doubt(self, entry: Entry) -> bool:
        """Whether the catalog cannot tell if the unit of that row took effect. Pure."""
        from flux.backends.postgres_in_doubt import find_look

        return super().is_in_doubt(entry) and find_look(entry.sql) is None

    def session_name(self) -> str | None:
        """The server's process and its start, as the journal has them; None behind a pooler."""
        if self._session_name is None and self.held.is_direct:
            [(self._session_name,)] = self.fetch(f"SELECT {OWN_SESSION}")
        return self._session_name

    def wait_for_predecessor(self, entries: Sequence[Entry]) -> None:
        """Wait until the server has ended what a killed run still had under way.

        Raises `MigrationLockError` after `lock_wait` seconds.
        """
        for entry in entries:
            if entry.state == "reached" and entry.session != ENDED:
                self._wait_for_end_of(entry)

    def _wait_for_end_of(self, entry: Entry) -> None:
        """Wait until what a row says was reached can run no more.

        The session is ended when it has nothing to do: its flux may be stopped, and would go on
        with a statement that another one runs by then.
        """
        from flux.backends.postgres_holder import wait_until_gone

        query = running(entry.sql, self.literal)
        if entry.session is not None:
            query = still_there(entry.session, self.literal)

        def find() -> str | None:
            rows = self.fetch(query)
            if not rows:
                return None
            [(pid, is_idle), *_] = rows
            if is_idle:
                with suppress(self.driver.error):  # another role's
                    self.fetch(f"SELECT pg_catalog.pg_terminate_backend({pid})")
            return f"pid {pid}"

        with self.reporting("cannot see what a run before this one has left"):
            wait_until_gone(self, find)

    # Checking and telling --------------------------------------------------------------------

    def examine(self) -> list[Finding]:
        """The server, the rights, the settings, and who is in the way. Read-only."""
        from flux.backends.postgres_examination import examine

        return examine(self)

    def fingerprint(self) -> Fingerprint:
        """Everything in the catalog but flux's own tables, in one query. Read-only."""
        from flux.backends import postgres_catalog

        with self.reporting("cannot read the catalog"):
            return postgres_catalog.read(self)

    def contents(self, without: Collection[Column] = ()) -> Fingerprint:
        """Which rows there are, by checksums, but flux's own and but some columns. Read-only."""
        from flux.backends import postgres_contents

        with self.reporting("cannot read the rows"):
            return postgres_contents.read(self, without)

    def scratch_place(self) -> PostgresScratchPlace:
        """The server of this database; connects to this database when it is entered."""
        from flux.backends.postgres_scratch import PostgresScratchPlace

        if self._dsn is not None:
            parameters = self.driver.parsed(self._dsn)
        else:
            self._parameters = self._parameters or self.driver.parameters(self._handed_in)
            parameters = self._parameters
        return PostgresScratchPlace(self.driver, parameters, self._connect, wait=self.lock_wait)

    def check_reach(self, script: Script) -> list[Problem]:
        """The statements that reach beyond the database, to the whole server. Pure."""
        from flux.backends.postgres_reach import find_reaching

        return find_reaching(script)

    def check_statements(
        self, script: Script, pieces: Sequence[Statement | MetaCommand]
    ) -> list[Problem]:
        """Refuse what psql alone understands, and what cannot run in flux's transaction."""
        from flux.backends.postgres_check import find_problems, find_wiping

        problems = find_problems(script, pieces)
        return problems if self._handed_in is None else problems + find_wiping(script, pieces)

    def describe_error(self, error: BaseException) -> ErrorReport:
        """The server's message, detail and hint; a hint of flux's own where it gives none."""
        return report(error, self.driver)
