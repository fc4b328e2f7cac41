"""The migration lock and the fence on PostgreSQL.

The *lock* is an advisory lock of a transaction, held for a whole batch on a connection of its
own, so that it works behind a transaction pooler and dies with its holder. Its number is the
one that flux-migrations 0.0.3 takes for its session, so that the two exclude each other.
An idle READ COMMITTED transaction holds no snapshot, and so does not hold up CREATE INDEX
CONCURRENTLY; a process blocked inside pg_advisory_lock would (golang-migrate#960).

The *fence* is a second advisory lock, which each migration's own transaction takes. The lock
of a killed run is free at once, while the server may still run its last statement; the fence
keeps the next run's first migration waiting until that is over.

The *token* is a third one, of a number that is drawn for each batch, beside the lock in the same
transaction: while nobody can take it, that very transaction goes on. To try costs a fraction of a
look through all locks, and cannot take for ours what another one holds in a session that a pooler
has given away again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flux.record import Record

_FLUX = 0x666C7578  # "flux" in ASCII
_SELF = "pg_catalog.pg_backend_pid()"
#: The setting by which a transaction knows that it took the fence.
FENCE_SETTING = "flux.fence"
_FENCE_TAKEN = "taken"

#: Texts of the errors that flux's own statements raise on purpose.
LOCK_LOST = "flux: the lock is lost"
LOCK_BUSY = "flux: the lock is busy"
FENCE_LOST = "flux: the transaction was ended"
HISTORY_CHANGED = "flux: the history has changed"

#: Whatever the default is: other levels would see the history as it was before the fence.
READ_COMMITTED = "ISOLATION LEVEL READ COMMITTED"
BEGIN = f"BEGIN {READ_COMMITTED};\n"


class Holder(Record):
    """The session that holds the lock, as far as this user may see it."""

    pid: int
    application: str | None
    host: str | None
    since: str | None

    def __str__(self) -> str:
        details = [self.application or "", f"on {self.host}" if self.host else ""]
        details += [f"since {self.since}" if self.since else ""]
        described = ", ".join(filter(None, details))
        return f"pid {self.pid}" + (f" ({described})" if described else "")


class Held(Record):
    """The lock of a batch: the pid of the session that holds it, and what the server can do.

    `pid` is None while each migration takes the lock itself; `token` is the number of the token
    otherwise. `can_mark` says that markers can be sent, `can_flag` that flags can stand for them,
    `checks_client` that the server can notice
    in mid-statement that its client is gone, `is_direct` that no pooler is in between; then
    `runs_in` is the pid of the session in which the batch runs.
    """

    pid: int | None = None
    can_mark: bool = False
    checks_client: bool = False
    can_flag: bool = False
    is_direct: bool = False
    runs_in: int | None = None
    token: int = 0


class LockSQL(Record):
    """The SQL about the lock of one number, a 64-bit integer."""

    lock_id: int

    @property
    def try_lock(self) -> str:
        """An expression: take the lock in this transaction if it is free; true if so."""
        return f"pg_catalog.pg_try_advisory_xact_lock('{self.lock_id}')"

    def take_token(self, token: int) -> str:
        """A statement: take the token of that number in this transaction; nobody else has it."""
        return f"SELECT pg_catalog.pg_try_advisory_xact_lock('{token}')"

    @property
    def outlast_timeouts(self) -> str:
        """A statement: let nothing end this transaction for being old or idle."""
        # Not every server has both. The list of all settings would take longer to make than all
        # else of taking the lock.
        names = "ARRAY['idle_in_transaction_session_timeout', 'transaction_timeout']"
        return (
            "SELECT pg_catalog.set_config(name, '0', true) "
            f"FROM pg_catalog.unnest({names}) name "
            "WHERE pg_catalog.current_setting(name, true) IS NOT NULL"
        )

    @property
    def take_fence(self) -> str:
        """A statement: take the fence in this transaction; waits for a killed run's last one."""
        return f"SELECT pg_catalog.pg_advisory_xact_lock({_FLUX}, {self._fence_id});\n"

    def take_fence_and_set(self, settings: Mapping[str, str]) -> str:
        """The same, and then set something, and note the fence, for the rest of the transaction.

        `fence_noted` looks for the note, for a fraction of what a look through all locks costs.
        """
        expressions = [
            f"pg_catalog.set_config('{name}', '{value}', true)"
            for name, value in (*settings.items(), (FENCE_SETTING, _FENCE_TAKEN))
        ]
        fence = self.take_fence.removesuffix(";\n")
        return f"{', '.join([fence, *expressions])};\n"

    @property
    def holder(self) -> str:
        """A query: the session that holds the lock, if any does. Read-only."""
        return self._session_with(self._is_lock)

    @property
    def is_held(self) -> str:
        """A query: a row, if any session holds the lock. Read-only.

        It takes half the time of asking who that is.
        """
        return f"SELECT 1 FROM pg_catalog.pg_locks l WHERE {self._is_lock} LIMIT 1"

    @property
    def fence_holder(self) -> str:
        """A query: the session that holds the fence, if any does. Read-only."""
        return self._session_with(f"{self._is_fence} AND l.granted")

    @property
    def fence_is_free(self) -> str:
        """An expression: whether no session holds the fence."""
        return (
            f"NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {self._is_fence} AND l.granted)"
        )

    def _session_with(self, condition: str) -> str:
        return (
            "SELECT a.pid, a.application_name, "
            "CASE WHEN a.backend_start IS NOT NULL THEN "  # else this user may not see it
            "coalesce(a.client_hostname, host(a.client_addr), 'the server itself') END, "
            "to_char(coalesce(a.xact_start, a.backend_start), 'YYYY-MM-DD HH24:MI:SS TZ') "
            "FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid) "
            f"WHERE {condition} LIMIT 1"
        )

    def still_held(self, held: Held) -> str:
        """An expression: whether the transaction that took the lock, or else this one, has it."""
        if held.pid is not None:
            return f"NOT pg_catalog.pg_try_advisory_xact_lock_shared('{held.token}')"
        return (
            f"EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {self._is_lock} AND l.pid = {_SELF})"
        )

    def end_session(self, pid: int) -> str:
        """A query: end the session of that pid, if it holds the fence."""
        return (
            "SELECT pg_catalog.pg_terminate_backend(l.pid) FROM pg_catalog.pg_locks l "
            f"WHERE {self._is_fence} AND l.pid = {pid}"
        )

    @property
    def at_fence(self) -> str:
        """A query: the pids of the sessions that hold the fence, or wait for it. Read-only."""
        return f"SELECT l.pid FROM pg_catalog.pg_locks l WHERE {self._is_fence}"

    @property
    def fence_held(self) -> str:
        """An expression: whether this very transaction still holds the fence."""
        # Which database it is of need not be asked of a session's own.
        return (
            f"EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {self._is_fence_somewhere} "
            f"AND l.granted AND l.pid = {_SELF})"
        )

    @property
    def fence_noted(self) -> str:
        """An expression: whether this very transaction has noted that it took the fence.

        Not after a RESET ALL.
        """
        return (
            f"pg_catalog.current_setting('{FENCE_SETTING}', true) "
            f"OPERATOR(pg_catalog.=) '{_FENCE_TAKEN}'"
        )

    @property
    def _is_fence(self) -> str:
        return f"{self._is_fence_somewhere} AND l.database = {_DATABASE}"

    @property
    def _is_fence_somewhere(self) -> str:
        return (
            f"l.locktype = 'advisory' AND l.classid = {_FLUX} "
            f"AND l.objid = {self._fence_id % 2**32} AND l.objsubid = 2"
        )

    @property
    def _is_lock(self) -> str:
        unsigned = self.lock_id % 2**64
        return (
            f"l.locktype = 'advisory' AND l.database = {_DATABASE} "
            f"AND l.classid = {unsigned >> 32} AND l.objid = {unsigned % 2**32} "
            "AND l.objsubid = 1 AND l.granted"
        )

    @property
    def _fence_id(self) -> int:
        """The lock's number folded into a signed 32-bit integer."""
        unsigned = self.lock_id % 2**64
        folded = (unsigned ^ (unsigned >> 32)) % 2**32
        return folded - 2**32 if folded >= 2**31 else folded


_DATABASE = (
    "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"
)


#: An expression: this session's process, its start, and its user, by which it is known again.
OWN_SESSION = (
    "(SELECT a.pid || ' ' || extract(epoch FROM a.backend_start) || ' ' || a.usename "
    f"FROM pg_catalog.pg_stat_activity a WHERE a.pid = {_SELF})"
)


def still_there(session: str, literal: Callable[[str], str]) -> str:
    """A query: the pid of that session, if it is there, and whether it is idle. Read-only.

    Where a right to see it is missing, its user and its pid tell.
    """
    pid, start, user = session.split(" ", 2)
    return (
        "SELECT a.pid, a.state LIKE 'idle%' FROM pg_catalog.pg_stat_activity a "
        f"WHERE a.pid = {int(pid)} AND a.pid <> {_SELF} AND "
        f"(extract(epoch FROM a.backend_start)::pg_catalog.text = {literal(start)} "
        f"OR a.backend_start IS NULL AND a.usename = {literal(user)})"
    )


def running(text: str, literal: Callable[[str], str]) -> str:
    """A query: the pids of the sessions in which this statement runs. Read-only.

    For behind a pooler, where the session is not known.
    """
    return (
        f"SELECT a.pid, false FROM pg_catalog.pg_stat_activity a WHERE a.pid <> {_SELF} "
        "AND a.datname = pg_catalog.current_database() AND a.state = 'active' "
        f"AND pg_catalog.left(a.query, 200) = {literal(text[:200])}"
    )


#: An expression: whether anyone may run the blocks that mark how far a message got.
CAN_MARK = (
    "EXISTS (SELECT FROM pg_catalog.pg_language WHERE lanname = 'plpgsql' "
    "AND pg_catalog.has_language_privilege('public', oid, 'usage'))"
)
#: An expression: whether this user may take flags.
CAN_FLAG = (
    "(pg_catalog.has_function_privilege("
    "'pg_catalog.pg_try_advisory_lock_shared(int4, int4)', 'execute') "
    "AND pg_catalog.has_function_privilege("
    "'pg_catalog.pg_advisory_unlock_shared(int4, int4)', 'execute'))"
)
#: An expression: whether the server can look for its client in mid-statement.
CAN_CHECK_CLIENT = (
    "current_setting('server_version_num')::int >= 140000 AND pg_catalog.version() LIKE '%linux%'"
)


def fail_unless(*conditions: tuple[str, str]) -> str:
    """An expression that is 0, or ends the transaction with an error that holds a text.

    That is the text beside the first condition that is not true. It works without a procedural
    language, and whatever casts a database has.
    """
    cases = " ".join(
        f"WHEN ({condition}) IS NOT TRUE THEN '{text}'" for condition, text in conditions
    )
    return f"pg_catalog.int4in((CASE {cases} ELSE '0' END)::pg_catalog.cstring)"
