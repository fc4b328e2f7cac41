"""Opening a database and running single steps in it; `runner` has the plans that they are of.

A step is recorded in the transaction it ran in. Here and in `runner` alone a database is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from flux.address import without_secrets
from flux.backends import BUILT_IN, backend_of_connection, load_backend
from flux.backends.base import MigrationBackend
from flux.backends.signals import HistoryChangedError
from flux.config import FluxConfig
from flux.exceptions import DatabaseUnavailableError, InvalidConfigurationError
from flux.failure import apply_error, cause_of
from flux.plan import Step
from flux.results import Event, StepResult

if TYPE_CHECKING:
    from typing_extensions import Self

    from flux.progress import Progress


def _call(act: Callable[[], None]) -> None:
    act()


class StepRunner:
    """Runs steps in one database. A context manager.

    `on_event` is called with an `Event` as things happen; what it raises ends the run, but for
    `progress`, which comes from a thread of its own.
    """

    def __init__(
        self,
        config: FluxConfig,
        backend: MigrationBackend,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.config = config
        self.backend = backend
        self._on_event = on_event
        #: Calls what changes the database; a program may put something else here, for instance
        #: an `Interruptible` (`flux.interruption`).
        self.call: Callable[[Callable[[], None]], None] = _call
        self._stack = ExitStack()
        #: Completes errors about the address, where there is one.
        self.about_address: Callable[[], AbstractContextManager[None]] = nullcontext

    @classmethod
    def from_config(
        cls,
        config: FluxConfig,
        database: Any = None,
        *,
        on_event: Callable[[Event], None] | None = None,
    ) -> Self:
        """A runner for a configuration, and an address or an open connection.

        Raises `InvalidConfigurationError` and `BackendLoadingError`.
        """
        if database is None or isinstance(database, str):
            url = config.resolve_url(database)
            hidden_in = None if config.backend in BUILT_IN else url
            about_address = partial(_about_address, config.source_of_url(database), hidden_in)
            with about_address():
                backend = load_backend(config.backend).from_config(config, url)
            runner = cls(config, backend, on_event=on_event)
            runner.about_address = about_address
            return runner
        name, connection = backend_of_connection(database)
        backend = load_backend(name).for_connection(config, connection)
        return cls(config, backend, on_event=on_event)

    def __enter__(self) -> Self:
        self.backend.announce = self._announce
        self.backend.report = self._report
        self.backend.connect_wait = self.config.connect_wait
        with self.about_address():
            self._stack.enter_context(self.backend.opened())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextmanager
    def stepping(self) -> Iterator[Callable[[Step], None]]:
        """Hold the lock, and carry out single steps of no plan: for a scratch database. Writes.

        What is given carries out one step as a batch does; it raises `MigrationApplyError`.
        """
        with self.backend.migration_lock():
            self.call(partial(self.backend.prepare, history=True, memory=True, unfinished=False))
            yield lambda step: self._run_steps([step], [])

    def _run_steps(self, steps: Sequence[Step], done: list[StepResult]) -> None:
        """Carry out steps in order, as many at a time as the backend takes together."""
        left = [step.loaded() for step in steps]
        while left:
            count = self.backend.count_bundle(left)
            self._run_bundle(left[:count], done)
            del left[:count]

    def _run_bundle(self, steps: Sequence[Step], done: list[StepResult]) -> None:
        self._emit(Event("start", steps[0]))
        started = time.perf_counter()
        ended: list[float] = []
        try:
            self.call(partial(self.backend.run_bundle, steps, ended.append))
        except Exception as error:
            self._tell_done(steps, ended, done)
            if isinstance(error, HistoryChangedError):
                raise
            self._fail(steps[len(ended) :], error, started, done)
        except KeyboardInterrupt:
            self._tell_done(steps, ended, done)
            raise
        self._tell_done(steps, ended, done)

    def _fail(
        self, steps: Sequence[Step], error: Exception, started: float, done: list[StepResult]
    ) -> NoReturn:
        """Raise the error for the steps that were under way; the first of them is what failed."""
        from flux.outcome import look_after

        after = look_after(self.backend, steps, error, self.call)
        if after.done:  # and only then the connection broke; which statement ran is not known
            seconds = (time.perf_counter() - started) / after.done
            self._tell_done(steps, [seconds] * after.done, done)
            error = cause_of(error)
        step = steps[min(after.done, len(steps) - 1)]
        names = tuple(result.name for result in done)
        raise apply_error(
            self.backend, step, step.script, error, after=after, done=names
        ) from cause_of(error)

    def _tell_done(
        self, steps: Sequence[Step], seconds: Sequence[float], done: list[StepResult]
    ) -> None:
        """Tell of the first of the steps, which are done, and of the next one, which has begun.

        They are all told of, also where what hears of one raises.
        """
        with ExitStack() as telling:
            if 0 < len(seconds) < len(steps):
                telling.callback(self._emit, Event("start", steps[len(seconds)]))
            for number, taken in reversed([*enumerate(seconds)]):
                telling.callback(self._emit, Event("done", steps[number], taken))
                if number:
                    telling.callback(self._emit, Event("start", steps[number]))
            for step, taken in zip(steps, seconds, strict=False):
                done.append(StepResult(step.action, step.name, taken))

    # Telling ---------------------------------------------------------------------------------

    def _announce(self, message: str) -> None:
        self._emit(Event("wait", message=message))

    def _report(self, progress: Progress) -> None:
        """Tell of a script that takes long. Called from the watcher's thread."""
        self._emit(Event("progress", message=str(progress), progress=progress))

    def _emit(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)


@contextmanager
def _about_address(source: str | None, hidden_in: str | None) -> Iterator[None]:
    """Let an error about the database's address say where that is from.

    No secret of the address `hidden_in` is shown: a plugin may pass on all that its driver says.
    """
    try:
        yield
    except (DatabaseUnavailableError, InvalidConfigurationError) as error:
        if hidden_in is not None:
            error.hide(partial(without_secrets, address=hidden_in))
        if source is not None and error.location is None:
            error.add_hint(f"the address is from {source}")
        raise
