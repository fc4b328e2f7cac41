"""The contract of backends, as tests: `flux.testing` gives it to plugins.

`BackendContract` holds what flux needs of a backend. It needs no test runner to be imported, and
runs under pytest:

    class TestCoolDB(BackendContract):
        @pytest.fixture(autouse=True)
        def database(self, tmp_path):
            self.path = tmp_path / "app.cool"

        def make_backend(self, config):
            return CoolBackend.from_config(config, f"cooldb://{self.path}")
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from flux.backends.base import MigrationBackend
from flux.backends.signals import HistoryChangedError, StatementError
from flux.config import FluxConfig
from flux.exceptions import (
    InvalidConfigurationError,
    MigrationApplyError,
    MigrationLockError,
)
from flux.migration import Migration, Repeatable, Script
from flux.plan import DatabaseState, Step
from flux.runner import FluxRunner

CREATE_BOOK = "CREATE TABLE flux_book (id integer, title varchar(200))"
DROP_BOOK = "DROP TABLE flux_book"
FAILS = "INSERT INTO flux_no_such_table VALUES (1)"

#: Ids that were seen to break one tool or another.
IDS = (
    "20240422_001_add-users",
    "it's",
    'the "best" `one`',
    "100% %s %(name)s",
    "{curly} :word ?",
    "a;b--c/*d*/",
    "back\\slash",
    "name with spaces. And dots",
    "Zoë_名前_🐍",
    "x" * 200,
)

#: Each has to run as it is, and to leave the row (1, title) in `flux_book`.
TEXTS = {
    "semicolons in strings": ("INSERT INTO flux_book VALUES (1, 'a;b;');", "a;b;"),
    "a quote": ("INSERT INTO flux_book VALUES (1, 'it''s');", "it's"),
    "no semicolon, no newline": ("INSERT INTO flux_book VALUES (1, 'x')", "x"),
    "a comment at the end": ("INSERT INTO flux_book VALUES (1, 'x') -- done; really", "x"),
    "comments": (
        "-- first; of all\nINSERT /* in; between */ INTO flux_book VALUES (1, 'x');\n-- last;\n",
        "x",
    ),
    "comments in strings": ("INSERT INTO flux_book VALUES (1, '-- x /* y');\n", "-- x /* y"),
    "percent signs": ("INSERT INTO flux_book VALUES (1, '100%s %% %(x)s');", "100%s %% %(x)s"),
    "placeholders": ("INSERT INTO flux_book VALUES (1, '? :a $1 {\"b\":1}');", '? :a $1 {"b":1}'),
    "other alphabets": ("INSERT INTO flux_book VALUES (1, 'Zoë 名前');", "Zoë 名前"),
    "empty statements": (";;\nINSERT INTO flux_book VALUES (1, 'x');;\n;", "x"),
    "several statements": (
        "INSERT INTO flux_book VALUES (1, 'w');\n"
        "UPDATE flux_book SET title = 'x'; INSERT INTO flux_book VALUES (2, 'y');\n"
        "DELETE FROM flux_book WHERE id = 2;",
        "x",
    ),
}


class BackendContract:
    """What flux needs of a backend, as tests; subclass it and write `make_backend`.

    Each test starts on an empty database. What a database without transactional DDL cannot do
    (`transactional_ddl = False` in its backend) is skipped, and the skip says so.
    """

    #: Seconds that the database gets to notice that the holder of the lock was killed.
    patience: float = 10

    def make_backend(self, config: FluxConfig) -> MigrationBackend:
        """A backend for the test's database, as `from_config` makes it of this configuration.

        It is called several times in a test, for several connections to one and the same
        database. Where the database needs settings, add them to those that are given:
        `config._replace(backend_config={**config.backend_config, "schema": "x"})`.
        """
        raise NotImplementedError("write make_backend(self, config) in your test class")

    # Settings --------------------------------------------------------------------------------

    def test_an_unknown_setting_is_refused(self) -> None:
        """`from_config` checks `[backend]`: a mistyped setting must not be passed over."""
        config = FluxConfig(backend_config={"no_such_setting": 1})
        with raises(InvalidConfigurationError, "making a backend with an unknown setting"):
            self.make_backend(config)

    def test_the_lock_wait_is_the_configured_one(self) -> None:
        """`--lock-wait` reaches the backend by way of the configuration."""
        backend = self.make_backend(FluxConfig(lock_wait=12.5))
        same(backend.lock_wait, 12.5, "backend.lock_wait, made with lock_wait=12.5")

    def test_the_backend_has_a_name(self) -> None:
        """Errors call the backend by its name."""
        if not self.make_backend(FluxConfig()).name:
            raise AssertionError("name is empty; it should be that of the entry point")

    # The history -----------------------------------------------------------------------------

    def test_a_new_database_has_no_history_and_reading_makes_none(self) -> None:
        """`status` on a database that flux has never touched leaves it untouched."""
        with self._opened() as backend:
            same(backend.read_state(), DatabaseState(), "read_state() of an empty database")
            same(backend.is_initialized(), False, "is_initialized() on an empty database")
        with self._opened() as other:
            same(other.is_initialized(), False, "is_initialized() after others have read")

    def test_initialize_creates_an_empty_history(self) -> None:
        """Others see the history as soon as the transaction that creates it has ended."""
        with self._opened() as other, self._opened() as backend:
            same(other.is_initialized(), False, "is_initialized() before initialize()")
            with backend.transaction():
                backend.initialize()
            for which, one in (("this", backend), ("another", other)):
                same(one.is_initialized(), True, f"is_initialized() on {which} connection")
                same(one.read_state(), DatabaseState(history=()), f"state on {which} connection")

    def test_initialize_is_rolled_back_with_its_transaction(self) -> None:
        """A batch that cannot be prepared leaves nothing behind."""
        with self._opened() as backend:
            _needs_transactional_ddl(backend)
            with raises(_OnPurposeError, "the block"), backend.transaction():
                backend.initialize()
                raise _OnPurposeError
        with self._opened() as other:
            same(other.is_initialized(), False, "is_initialized() after a rollback")

    def test_what_is_registered_is_in_the_history(self) -> None:
        """Every id comes back as it went in, whatever letters it has, with its hash and time."""
        wanted = {id: Migration.from_text(id, f"-- {number}") for number, id in enumerate(IDS)}
        with self._initialized() as backend:
            with backend.transaction():
                for migration in wanted.values():
                    backend.register_migration(migration)
            rows = list(backend.get_applied_migrations())
            same(
                {row.id: row.hash for row in rows},
                {id: migration.hash for id, migration in wanted.items()},
                "the ids and hashes of get_applied_migrations()",
            )
            for row in rows:
                if not isinstance(row.applied_at, datetime):
                    raise AssertionError(f"applied_at is no datetime: {row.applied_at!r}")
            for id in wanted:
                same(backend.is_recorded(id), True, f"is_recorded({id!r})")
            state = backend.read_state()
            same([row.id for row in state.history or ()], sorted(IDS), "read_state().history")

    def test_what_is_unregistered_is_not_in_the_history(self) -> None:
        """Only the row of that very id goes."""
        with self._initialized() as backend:
            with backend.transaction():
                for id in IDS:
                    backend.register_migration(Migration.from_text(id, ""))
            left = set(IDS)
            for id in IDS:
                with backend.transaction():
                    backend.unregister_migration(Migration.from_text(id, ""))
                left.remove(id)
                found = {row.id for row in backend.get_applied_migrations()}
                same(found, left, f"the ids after unregister_migration({id!r})")
                same(backend.is_recorded(id), False, f"is_recorded({id!r})")

    def test_reading_again_shows_what_others_have_done(self) -> None:
        """flux reads the history again under the lock, and must not see an old view of it."""
        with self._initialized() as reader, self._opened() as writer:
            same(list(reader.get_applied_migrations()), [], "the history before")
            reader.read_state()
            with writer.transaction():
                writer.register_migration(Migration.from_text("a", ""))
            found = [row.id for row in reader.get_applied_migrations()]
            same(found, ["a"], "the history that a connection reads which has read it before")

    # Transactions ----------------------------------------------------------------------------

    def test_a_transaction_commits(self) -> None:
        """What was done in it is there for others when it has ended."""
        with self._with_books() as backend:
            with backend.transaction():
                backend.apply_migration("INSERT INTO flux_book VALUES (1, 'x')")
                backend.register_migration(Migration.from_text("a", ""))
            same(self._books(), [(1, "x")], "the rows after a transaction")
            same(self._ids(), ["a"], "the history after a transaction")

    def test_a_transaction_is_rolled_back_when_an_exception_passes(self) -> None:
        """Nothing of it is there, the exception passes, and the next transaction works."""
        with self._with_books() as backend:
            for error in (_OnPurposeError, KeyboardInterrupt):
                with raises(error, "the block"), backend.transaction():
                    backend.apply_migration("INSERT INTO flux_book VALUES (1, 'x')")
                    backend.register_migration(Migration.from_text("a", ""))
                    raise error
                same(self._books(), [], f"the rows after {error.__name__}")
                same(self._ids(), [], f"the history after {error.__name__}")
            with backend.transaction():
                backend.register_migration(Migration.from_text("b", ""))
            same(self._ids(), ["b"], "the history after the next transaction")

    def test_a_connection_can_be_opened_again(self) -> None:
        """`opened()` closes what it opened, and can be entered once more."""
        with self._initialized() as backend, backend.transaction():
            backend.register_migration(Migration.from_text("a", ""))
        same(backend.dbapi, None, "backend.dbapi after opened()")
        with backend.opened():
            found = [row.id for row in backend.get_applied_migrations()]
            same(found, ["a"], "the history that is read after opening again")

    # Running text ----------------------------------------------------------------------------

    def test_text_runs_as_it_is(self) -> None:
        """Semicolons, comments, per cent signs and placeholders mean what they mean in SQL."""
        with self._with_books() as backend:
            for what, (text, title) in TEXTS.items():
                with backend.transaction():
                    backend.apply_migration(text)
                same(self._books(), [(1, title)], f"the rows after text with {what}")
                with backend.transaction():
                    backend.apply_migration("DELETE FROM flux_book")

    def test_text_without_a_statement_does_nothing(self) -> None:
        """Empty files, and such with comments alone, are common."""
        with self._opened() as backend:
            for text in ("", "\n", "-- only a comment", "/* only; a comment */\n", ";", " ;\n; "):
                with backend.transaction():
                    backend.apply_migration(text)

    def test_a_failing_statement_raises_the_drivers_error(self) -> None:
        """It is the driver's own, or a `StatementError` over it, and it has words."""
        with self._opened() as backend:
            fails = raises((backend.driver_error, StatementError), "apply_migration")
            with fails as caught, backend.transaction():
                backend.apply_migration(FAILS)
            error = caught.error
            cause = error.__cause__ if isinstance(error, StatementError) else error
            if not isinstance(cause, backend.driver_error):
                raise AssertionError(f"{cause!r} is no {backend.driver_error.__name__}")
            if not backend.describe_error(cause).message:
                raise AssertionError(f"describe_error({cause!r}) has no message")

    # The lock --------------------------------------------------------------------------------

    def test_the_lock_keeps_others_out(self) -> None:
        """One at a time, and the next one when it has ended."""
        with self._opened() as backend, self._opened() as other:
            with backend.migration_lock():
                self._is_locked_for(other, "while the lock is held")
            with other.migration_lock():
                self._is_locked_for(backend, "while the other one holds the lock")
            with backend.migration_lock():
                pass

    def test_the_lock_outlasts_transactions(self) -> None:
        """A batch is many transactions, and some of them fail; the lock is held throughout."""
        with self._initialized() as backend, self._opened() as other, backend.migration_lock():
            with backend.transaction():
                backend.register_migration(Migration.from_text("a", ""))
            self._is_locked_for(other, "after a transaction has committed")
            with raises(_OnPurposeError, "the block"), backend.transaction():
                raise _OnPurposeError
            self._is_locked_for(other, "after a transaction was rolled back")

    def test_the_lock_is_free_after_an_exception(self) -> None:
        """A batch that failed does not keep the next one out."""
        with self._opened() as backend, self._opened() as other:
            with raises(_OnPurposeError, "the block"), backend.migration_lock():
                raise _OnPurposeError
            with other.migration_lock():
                pass

    def test_the_lock_does_not_hold_up_readers(self) -> None:
        """`status` is answered while a batch runs."""
        with self._initialized() as backend, self._opened() as other, backend.migration_lock():
            same(other.read_state(), DatabaseState(history=()), "what a reader gets")

    def test_a_waiter_says_so_and_gives_up(self) -> None:
        """It tells once at the start that it waits, and stops after `lock_wait` seconds."""
        told: list[str] = []
        with self._opened() as backend, self._opened(lock_wait=0.3) as other:
            other.announce = told.append
            with backend.migration_lock():
                self._is_locked_for(other, "while the lock is held")
        same(len(told), 1, f"how often a waiter said that it waits ({told})")

    def test_the_lock_dies_with_its_holder(self) -> None:
        """A process that was killed in the middle of a batch locks nobody out."""
        if sys.platform != "linux":
            skip("a process is forked and killed here, which is for Linux alone")
        with self._in_child(self._hold_lock_for_ever) as kill:
            with self._opened() as backend:
                self._is_locked_for(backend, "while another process holds the lock")
            kill()
            with self._opened(lock_wait=self.patience) as backend, backend.migration_lock():
                pass

    # Running migrations ----------------------------------------------------------------------

    def test_a_migration_and_its_row_come_and_go_together(self) -> None:
        """`run_migration` writes both, `undo_migration` takes both away."""
        migration = Migration.from_text("a", f"{CREATE_BOOK};\n", f"{DROP_BOOK};\n")
        with self._initialized() as backend:
            backend.run_migration(migration)
            same(self._has_books(), True, "whether the table is there after run_migration")
            same(self._ids(), ["a"], "the history after run_migration")
            backend.undo_migration(migration, migration.undo_script())
            same(self._has_books(), False, "whether the table is there after undo_migration")
            same(self._ids(), [], "the history after undo_migration")

    def test_a_failing_migration_leaves_nothing(self) -> None:
        """Neither its rows nor its own row in the history, and the next one can run."""
        works = "INSERT INTO flux_book VALUES (1, 'x');\n"
        failing = Migration.from_text("a", f"{works}{FAILS};\n")
        with self._with_books() as backend:
            with raises((backend.driver_error, StatementError), "run_migration"):
                backend.run_migration(failing)
            same(self._books(), [], "the rows after a migration that failed")
            same(self._ids(), [], "the history after a migration that failed")
            backend.run_migration(Migration.from_text("a", works))
            same(self._books(), [(1, "x")], "the rows after the migration was mended")

    def test_a_failing_migration_leaves_no_table(self) -> None:
        """The rollback takes back what was created, too."""
        with self._initialized() as backend:
            _needs_transactional_ddl(backend)
            with raises((backend.driver_error, StatementError), "run_migration"):
                backend.run_migration(Migration.from_text("a", f"{CREATE_BOOK};\n{FAILS};\n"))
            same(self._has_books(), False, "whether the table of a failed migration is there")

    def test_nothing_runs_twice(self) -> None:
        """A migration that somebody else has recorded meanwhile raises, and does not run."""
        migration = Migration.from_text(
            "a", "INSERT INTO flux_book VALUES (1, 'x')", "DELETE FROM flux_book"
        )
        with self._with_books() as backend:
            backend.run_migration(migration)
            with raises(HistoryChangedError, "run_migration of a recorded migration"):
                backend.run_migration(migration)
            same(self._books(), [(1, "x")], "the rows after running it twice")
            backend.undo_migration(migration, migration.undo_script())
            with raises(HistoryChangedError, "undo_migration of a migration that is not recorded"):
                backend.undo_migration(migration, migration.undo_script())
            same(self._ids(), [], "the history after undoing it twice")

    def test_steps_that_go_together_are_done_one_after_the_other(self) -> None:
        """Each is noted when it is done, and is as a whole there or not, also where one fails."""
        texts = [f"INSERT INTO flux_book VALUES ({number}, 'x');" for number in range(4)]
        texts[2] += f"\n{FAILS};"
        steps = [
            Step("apply", Migration.from_text(id, text))
            for id, text in zip("abcd", texts, strict=True)
        ]
        noted: list[float] = []

        def run_all() -> None:
            while left := steps[len(noted) :]:
                count = backend.count_bundle(left)
                same(1 <= count <= len(left), True, f"whether count_bundle can be {count}")
                before = len(noted)
                backend.run_bundle(left[:count], noted.append)
                some = 1 <= len(noted) - before <= count
                same(some, True, "whether run_bundle noted some of the steps")

        with self._with_books() as backend, backend.migration_lock():
            with raises((backend.driver_error, StatementError), "run_bundle"):
                run_all()
            same(len(noted), 2, "how many steps were noted before the one that failed")
            same(self._ids(), ["a", "b"], "the history after it failed")
            same(self._books(), [(0, "x"), (1, "x")], "the rows after it failed")

    def test_a_function_gets_the_connection(self) -> None:
        """A Python migration works on the DB-API connection, within flux's transaction."""

        def works(connection: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("INSERT INTO flux_book VALUES (1, 'x')")
            cursor.close()

        def fails(connection: Any) -> None:
            works(connection)
            raise _OnPurposeError

        with self._with_books() as backend:
            with raises(_OnPurposeError, "run_migration"):
                backend.run_migration(Migration("a", Script("a.py", "0" * 64, function=fails)))
            same((self._books(), self._ids()), ([], []), "rows and history after it failed")
            backend.run_migration(Migration("a", Script("a.py", "0" * 64, function=works)))
            same((self._books(), self._ids()), ([(1, "x")], ["a"]), "rows and history after it")

    def test_a_migration_cannot_end_its_transaction(self) -> None:
        """`check` refuses a COMMIT before anything runs: half of it would be left."""
        with self._opened() as backend:
            for word in ("COMMIT", "ROLLBACK"):
                script = Script.from_text(f"{CREATE_BOOK};\n{word};\n{DROP_BOOK};\n", "a.sql")
                if not backend.check(script):
                    raise AssertionError(f"check() has nothing against {word} in a migration")
            script = Script.from_text(f"{CREATE_BOOK};\n{DROP_BOOK};\n", "a.sql")
            same(backend.check(script), [], "what check() has against a plain migration")

    # What is remembered beside the history ---------------------------------------------------

    def test_an_unfinished_batch_is_remembered(self) -> None:
        """A batch that was cut off before its post-apply repeatables is finished later."""
        with self._opened() as backend:
            backend.prepare(history=True, memory=True, unfinished=True)
            for number in (1, 2):
                same(self._state().unfinished, True, f"whether a batch is unfinished ({number})")
                backend.prepare(history=False, memory=True, unfinished=True)
            backend.mark_finished()
            same(self._state().unfinished, False, "whether a batch is unfinished after all")

    def test_the_last_run_of_a_repeatable_is_remembered(self) -> None:
        """With `on-change` its hash, in the transaction that it ran in; without, nothing."""
        views = [
            Repeatable("it's", "post-apply", Script.from_text(f"-- flux: on-change\n{text}", "v"))
            for text in ("DELETE FROM flux_book", "-- changed\nDELETE FROM flux_book")
        ]
        always = Repeatable("always", "pre-apply", Script.from_text("DELETE FROM flux_book", "a"))
        failing = Repeatable(
            "it's", "post-apply", Script.from_text("-- flux: on-change\n" + FAILS, "f")
        )
        with self._with_books() as backend:
            backend.prepare(history=False, memory=True, unfinished=False)
            for view in views:
                backend.run_repeatable(view)
                backend.run_repeatable(always)
                wanted = {"post-apply/it's": view.script.hash}
                same(self._state().last_runs, wanted, "the hashes of the last runs")
            with raises((backend.driver_error, StatementError), "run_repeatable"):
                backend.run_repeatable(failing)
            same(self._state().last_runs, wanted, "the hashes of the last runs after a failure")

    # From end to end -------------------------------------------------------------------------

    def test_apply_and_rollback(self) -> None:
        """A directory is applied, shown, rolled back by one, and applied again."""
        with _directory(PROJECT) as path:
            with self._runner(path) as runner:
                same(runner.status().pending, ("001_books", "002_rows", "003_more"), "pending")
                result = runner.apply_migrations()
                same(result.applied, ("001_books", "002_rows", "003_more"), "what was applied")
                same(runner.apply_migrations().steps, (), "what a second apply does")
                same(runner.status().problems, (), "the problems of what was applied")
            same(self._books(), [(1, "one"), (2, "two"), (3, "tidy")], "the rows after apply")
            with self._runner(path) as runner:
                same(runner.rollback_migrations().undone, ("003_more",), "what was undone")
                same(self._books(), [(1, "one"), (2, "two")], "the rows after a rollback")
                same(runner.apply_migrations().applied, ("003_more",), "what was applied again")
                undone = ("003_more", "002_rows", "001_books")
                same(runner.rollback_migrations(None).undone, undone, "what a full rollback undid")
            same(self._has_books(), False, "whether the table is there after a full rollback")
            same(self._state(), DatabaseState(history=()), "the state after a full rollback")

    def test_a_batch_that_fails_can_be_mended(self) -> None:
        """What came before the failure stays, the failed one leaves nothing, the next finishes."""
        failing = {"004_fails.sql": f"INSERT INTO flux_book VALUES (4, 'no');\n{FAILS};\n"}
        with _directory({**PROJECT, **failing}) as path:
            with self._runner(path) as runner:
                with raises(MigrationApplyError, "apply_migrations") as caught:
                    runner.apply_migrations()
                same(caught.error.id, "004_fails", "the migration that the error names")
                done = ("001_books", "002_rows", "003_more")
                same(caught.error.done, done, "what the error says was done")
                if not isinstance(caught.error.__cause__, runner.backend.driver_error):
                    raise AssertionError(
                        f"the cause is not the driver's: {caught.error.__cause__!r}"
                    )
            same(self._ids(), list(done), "the history after a failure")
            same(self._books(), [(1, "one"), (2, "two"), (3, "three")], "the rows after a failure")
            _write(path, "004_fails.sql", "INSERT INTO flux_book VALUES (4, 'yes');\n")
            with self._runner(path) as runner:
                same(runner.status().unfinished, True, "whether the batch is unfinished")
                same(runner.apply_migrations().applied, ("004_fails",), "what the next one applied")
                same(runner.status().unfinished, False, "whether it still is unfinished")
            rows = [(1, "one"), (2, "two"), (3, "tidy"), (4, "yes")]
            same(self._books(), rows, "the rows after the next one")

    def test_a_file_can_run_without_a_transaction(self) -> None:
        """With the directive `no-transaction`, where the backend has it."""
        if "no_transaction" not in self.make_backend(FluxConfig()).directives:
            skip("this backend has no directive no-transaction")
        text = f"-- flux: no-transaction\n{CREATE_BOOK};\nINSERT INTO flux_book VALUES (1, 'x');\n"
        files = {"a.sql": text, "a.undo.sql": f"{DROP_BOOK};\n"}
        with _directory(files) as path, self._runner(path) as runner:
            same(runner.apply_migrations().applied, ("a",), "what was applied")
            same((self._books(), self._ids()), ([(1, "x")], ["a"]), "rows and history")
            same(runner.rollback_migrations().undone, ("a",), "what was undone")

    def test_apply_waits_for_the_lock_only_when_there_is_something_to_do(self) -> None:
        """Replicas that start on a current database do not queue up."""
        with _directory({"a.sql": CREATE_BOOK}) as path, self._opened() as holder:
            with self._runner(path) as runner, holder.migration_lock():
                with raises(MigrationLockError, "apply_migrations while another one runs"):
                    runner.apply_migrations()
                same(self._has_books(), False, "whether the table is there")
            with self._runner(path) as runner:
                runner.apply_migrations()
                with holder.migration_lock():
                    same(runner.apply_migrations().steps, (), "what a no-op does under the lock")

    # Helpers ---------------------------------------------------------------------------------

    @contextmanager
    def _opened(self, *, lock_wait: float = 0) -> Iterator[MigrationBackend]:
        """A connection of its own to the test's database; waits for the lock for seconds."""
        backend = self.make_backend(FluxConfig(lock_wait=lock_wait))
        with backend.opened():
            yield backend

    @contextmanager
    def _initialized(self) -> Iterator[MigrationBackend]:
        """The same with a history."""
        with self._opened() as backend:
            with backend.transaction():
                backend.initialize()
            yield backend

    @contextmanager
    def _with_books(self) -> Iterator[MigrationBackend]:
        """The same with a history and a table."""
        with self._initialized() as backend:
            with backend.transaction():
                backend.apply_migration(CREATE_BOOK)
            yield backend

    @contextmanager
    def _runner(self, path: str) -> Iterator[FluxRunner]:
        config = FluxConfig(migration_directory=path, lock_wait=0, apply_repeatable_on_undo=False)
        with FluxRunner(config, self.make_backend(config)) as runner:
            yield runner

    # What others see is what was committed.

    def _state(self) -> DatabaseState:
        with self._opened() as backend:
            return backend.read_state()

    def _ids(self) -> list[str]:
        return [row.id for row in self._state().history or ()]

    def _books(self) -> list[tuple[Any, ...]]:
        with self._opened() as backend:
            return [tuple(row) for row in backend.fetch("SELECT * FROM flux_book ORDER BY id")]

    def _has_books(self) -> bool:
        with self._opened() as backend:
            try:
                backend.fetch("SELECT id FROM flux_book")
            except backend.driver_error:
                return False
        return True

    def _is_locked_for(self, backend: MigrationBackend, when: str) -> None:
        with raises(MigrationLockError, f"migration_lock() {when}"), backend.migration_lock():
            pass

    def _hold_lock_for_ever(self, ready: Callable[[], object]) -> None:
        with self._opened() as backend, backend.migration_lock():
            ready()
            time.sleep(600)

    @contextmanager
    def _in_child(
        self, work: Callable[[Callable[[], object]], None]
    ) -> Iterator[Callable[[], None]]:
        """Do work in a process of its own; goes on when that calls what it is given.

        Gives a function that kills the process.
        """
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
            child = os.fork()
        if child == 0:
            try:
                work(lambda: os.write(writing, b"!"))
            except BaseException:
                traceback.print_exc()
            finally:  # it must never get back to the tests
                os.kill(os.getpid(), signal.SIGKILL)
        killed = False

        def kill() -> None:
            nonlocal killed
            if not killed:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed = True

        try:
            os.close(writing)
            if not os.read(reading, 1):
                raise AssertionError("the other process ended before it had the lock")
            yield kill
        finally:
            os.close(reading)
            kill()


#: A migration directory by the paths of its files.
PROJECT = {
    "001_books.sql": f"{CREATE_BOOK};\n",
    "001_books.undo.sql": f"{DROP_BOOK};\n",
    "002_rows.sql": (
        "INSERT INTO flux_book VALUES (1, 'one');\nINSERT INTO flux_book VALUES (2, 'two')"
    ),
    "002_rows.undo.sql": "DELETE FROM flux_book WHERE id IN (1, 2);\n",
    "003_more.py": (
        "def apply(connection):\n"
        "    connection.cursor().execute(\"INSERT INTO flux_book VALUES (3, 'three')\")\n"
        "def undo():\n"
        "    return 'DELETE FROM flux_book WHERE id = 3'\n"
    ),
    "post-apply/tidy.sql": "UPDATE flux_book SET title = 'tidy' WHERE id = 3;\n",
}


class _OnPurposeError(Exception):
    """Raised by a test to see what it leaves behind."""


def same(found: object, wanted: object, what: str) -> None:
    """Raise AssertionError unless the two are equal; `what` names what was found."""
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, found {found!r}")


class raises:
    """A block that has to raise one of these types; else AssertionError says `what` did not.

    `error` is what it raised.
    """

    error: Any = None

    def __init__(
        self, wanted: type[BaseException] | tuple[type[BaseException], ...], what: str
    ) -> None:
        self.wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        self.what = what

    def __enter__(self) -> raises:
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            names = " or ".join(wanted.__name__ for wanted in self.wanted)
            raise AssertionError(f"{self.what} did not raise {names}")
        self.error = error
        return isinstance(error, self.wanted)


def skip(reason: str) -> NoReturn:
    """Skip the test that is running, by a reason that pytest and unittest show."""
    from unittest import SkipTest

    raise SkipTest(reason)


def _needs_transactional_ddl(backend: MigrationBackend) -> None:
    if not backend.transactional_ddl:
        skip(f"{backend.name} has no transactional DDL")


@contextmanager
def _directory(files: dict[str, str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        for name, text in files.items():
            _write(path, name, text)
        yield path


def _write(path: str, name: str, text: str) -> None:
    file = Path(path, name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
