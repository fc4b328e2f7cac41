"""Opening a database and running single steps in it; `runner` has the plans that they are of.

A step is recorded in the transaction it ran in. Here and in `runner` alone a database is changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from types import TracebackType

from flux.address import without_secrets
from flux.backends import BUILT_IN, backend_of_connection, load_backend
from flux.backends.base import MigrationBackend
from flux.backends.signals import HistoryChangedError
from flux.config import FluxConfig
from flux.exceptions import DatabaseUnavailableError, InvalidConfigurationError
from flux.plan import Step
from flux.results import Event, StepResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from typing_extensions import Self

    from flux.progress import Progress


def _call(act: Callable[[], None]) -> None:
    act()


class _Bundle:
    """Steps that go to the database together: which of them are done, and which are told of.

    `done` gets the result of each that is told of.
    """

    def __init__(
        self, steps: Sequence[Step], done: list[StepResult], emit: Callable[[Event], None]
    ) -> None:
        self.done = done
        self._steps = steps
        self._emit = emit
        #: How long each took that is done, in order.
        self._seconds: list[float] = []
        self._told = 0

    @property
    def left(self) -> Sequence[Step]:
        """Those that are not done."""
        return self._steps[len(self._seconds) :]

    def note(self, seconds: float) -> None:
        """Note that the next one is done."""
        self._seconds.append(seconds)

    def end(self) -> int:
        """Note that none of those that are not done has begun; how many are done."""
        self._steps = self._steps[: len(self._seconds)]
        return len(self._steps)

    def tell(self) -> None:
        """Tell of those that are done since the last time, and of the next one, which has begun.

        They are all told of, also where what hears of one raises.
        """
        first, told = self._told, len(self._seconds)
        if first == told:
            return
        events, results = [], []
        for step, seconds in zip(self._steps[first:], self._seconds[first:], strict=False):
            events += [Event("start", step), Event("done", step, seconds)]
            results.append(StepResult(step.action, step.name, seconds))
        events += [Event("start", step) for step in self.left[:1]]
        self._told = told
        self.done += results
        _tell_all(self._emit, iter(events[1:]))  # that the first one has begun is told already


def _tell_all(emit: Callable[[Event], None], events: Iterator[Event]) -> None:
    """Tell of events in order, also where what hears of one raises."""
    try:
        for event in events:
            emit(event)
    except BaseException:
        _tell_all(emit, events)
        raise


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
        #: The steps that are under way.
        self._bundle: _Bundle | None = None
        #: Calls what changes the database, also from within such a call; a program may put
        #: something else here, for instance an `Interruptible` (`flux.interruption`).
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

        def run() -> None:
            while left:
                count = self.backend.count_bundle(left)
                # A backend that notes nothing has carried out all of them.
                del left[: self._run_bundle(left[:count], done) or count]

        self.call(run)  # once for all: an `Interruptible` starts a thread each time

    def _run_bundle(self, steps: Sequence[Step], done: list[StepResult]) -> int:
        """Carry out some of the steps, the first at least; how many."""
        self._emit(Event("start", steps[0]))
        started = time.perf_counter()
        self._bundle = bundle = _Bundle(steps, done, self._emit)
        try:
            self.call(partial(self.backend.run_bundle, steps, bundle.note))
        except Exception as error:
            bundle.tell()
            if isinstance(error, HistoryChangedError):
                raise
            self._fail(bundle, error, started)
        except BaseException:  # what a signal's handler raises
            bundle.tell()
            raise
        finally:
            self._bundle = None
        count = bundle.end()
        bundle.tell()
        return count

    def _fail(self, bundle: _Bundle, error: Exception, started: float) -> NoReturn:
        """Raise the error for the steps that were under way; the first of them is what failed."""
        from flux.failure import apply_error, cause_of
        from flux.outcome import look_after

        steps = bundle.left
        after = look_after(self.backend, steps, error, self.call)
        if after.done:  # and only then the connection broke; which statement ran is not known
            for _ in range(after.done):
                bundle.note((time.perf_counter() - started) / after.done)
            bundle.tell()
            error = cause_of(error)
        step = steps[min(after.done, len(steps) - 1)]
        names = tuple(result.name for result in bundle.done)
        raise apply_error(
            self.backend, step, step.script, error, after=after, done=names
        ) from cause_of(error)

    # Telling ---------------------------------------------------------------------------------

    def _announce(self, message: str) -> None:
        if self._bundle is not None:
            self._bundle.tell()  # what is committed, before anybody is waited for
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
