"""Watching a script that runs, and telling of it when it takes long.

A thread wakes up twice a second and reports where the script is: what the runner's own thread has
said of it, and what the database says, where a backend can ask. It never raises into what it
watches: a migration does not fail because it could not be watched.

One thread watches all scripts of a batch, and ends by itself soon after the last. A thread for
each would have to be started and waited for each time: where the machine is busy, that takes
longer than most migrations.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from flux.migration import Script
from flux.progress import REPORT_AFTER, Blocker, Progress, first_words
from flux.record import Record
from flux.statements import Statement

#: Seconds between two looks, and that a look gets to end when what it looks at is over.
_LOOK_EVERY = 0.5
_END_WITHIN = 2.0
#: Seconds after which the thread looks whether another script runs by now, or none.
_TICK = 0.25


class Sight(Record):
    """What a database says of what runs; the fields are those of `Progress`.

    `number` is None where the database does not know; `query` is what the session runs. `file`
    says which script it is, of those that run one after the other.
    """

    number: int | None = None
    query: str | None = None
    waits_for: str | None = None
    phase: str | None = None
    percent: int | None = None
    blockers: tuple[Blocker, ...] = ()
    file: str | None = None


class Watched(Record):
    """A script that runs, and its statements in order."""

    script: Script
    statements: Sequence[Statement]


class _Watch:
    """The time that one script runs."""

    def __init__(self, look_at: float) -> None:
        self.look_at = look_at
        #: The look of the thread, once it has begun, which the watcher's lock guards: most scripts
        #: are over before, and have no use for what it takes to make one.
        self.look: _Look | None = None


class _Look:
    """The time that the thread looks at a script."""

    def __init__(self) -> None:
        #: Whether the script has ended, and whether the thread looks no more.
        self.over = threading.Event()
        self.left = threading.Event()


class Watcher:
    """Reports what a script does while it takes long. This one knows the clock alone.

    `report` is called from a thread of the watcher's own; what it raises ends that thread, and
    so the reports on this script, and goes to `threading.excepthook`.
    """

    def __init__(self, report: Callable[[Progress], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        #: Of the script that runs now.
        self._watch: _Watch | None = None
        self._script: Script
        self._statements: Sequence[Statement] = ()
        #: Those that come after it in the same message, by what a look calls them.
        self._following: Mapping[str, Watched] = {}
        self._started = 0.0
        #: The statement that is reached, and when; one value, because two threads share it.
        self._reached: tuple[int | None, float] = (None, 0.0)
        #: What was seen last of the script that runs, or ran last.
        self.seen = Sight()

    @contextmanager
    def watching(self, script: Script, *, patience: float = REPORT_AFTER) -> Iterator[None]:
        """Watch the script that runs inside; look first after `patience` seconds, report after 2.

        Ends within seconds of what it watches, also when the database does not answer.
        """
        self._script, self._statements, self.seen = script, (), Sight()
        self._following = {}
        self._started = time.monotonic()
        self._reached = (None, self._started)
        watch = _Watch(self._started + min(patience, REPORT_AFTER))
        self._begin(watch)
        if patience < _TICK:
            self._wake.set()
        try:
            yield
        finally:
            self._end(watch)

    def expect(self, statements: Sequence[Statement]) -> None:
        """Note which statements the script will run, in order."""
        self._statements = statements

    def expect_all(self, watched: Mapping[str, Watched]) -> None:
        """Note which scripts will run one after the other, by what a look calls their `file`."""
        self._following = watched

    def reach(self, number: int) -> None:
        """Note that a statement (1-based) starts now; one more than there are is the end."""
        self._reached = (number, time.monotonic())

    # For a backend that can ask its database -------------------------------------------------

    @property
    def statement(self) -> Statement | None:
        """The statement that runs, where that is known."""
        number = self._reached[0]
        return self._statements[number - 1] if number and number <= len(self._statements) else None

    @contextmanager
    def looking(self) -> Iterator[Callable[[], Sight]]:
        """A function that asks the database, and does not raise; for the time of one script.

        Entered, called and left in the watcher's thread.
        """
        yield Sight

    def hang_up(self) -> None:
        """End a look that hangs. Called from another thread."""

    # The thread ------------------------------------------------------------------------------

    def _begin(self, watch: _Watch) -> None:
        with self._lock:
            self._watch = watch
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="flux-watcher", daemon=True)
                self._thread.start()

    def _end(self, watch: _Watch) -> None:
        with self._lock:
            self._watch = None
        if (look := watch.look) is None:
            return
        look.over.set()
        if look.left.wait(_END_WITHIN):
            return
        self.hang_up()
        if not look.left.wait(_END_WITHIN):
            self._thread = None  # it hangs: the next script gets another one

    def _work(self) -> None:
        """Look at each script that runs for longer than its patience, until none runs."""
        while True:
            with self._lock:
                watch = self._watch
                if self._thread is not threading.current_thread():
                    return
                if watch is None:
                    self._thread = None
                    return
                pause = watch.look_at - time.monotonic()
                watch.look = look = _Look() if pause <= 0 else None
            if look is None:
                self._wake.wait(min(pause, _TICK))
                self._wake.clear()
                continue
            try:
                self._look_at(look.over)
            finally:
                look.left.set()

    def _look_at(self, over: threading.Event) -> None:
        began = looked = self._started
        with self.looking() as look:
            while not over.is_set():
                before, looked = looked, time.monotonic()
                sight = look()
                if over.is_set():
                    return
                self.seen = sight
                self._follow(sight, before)
                # Not by the clock of the script: of many short ones the first is told of, too.
                if time.monotonic() - began >= REPORT_AFTER:
                    self._report(self._progress(sight))
                over.wait(_LOOK_EVERY)

    def _follow(self, sight: Sight, before: float) -> None:
        """Note what is reached; it was at some time since the look before."""
        watched = self._following.get(sight.file or "")
        if watched is not None and watched.script is not self._script:
            self._script, self._statements = watched
            self._started, self._reached = before, (sight.number, before)
        elif sight.number not in (None, self._reached[0]):
            self._reached = (sight.number, before)

    def _progress(self, sight: Sight) -> Progress:
        number, since = self._reached
        statement, total = self.statement, len(self._statements)
        now = time.monotonic()
        is_over = number is not None and statement is None
        # What a function runs, only the database knows; around a text, it is flux's own.
        query = sight.query if self._script.function else None
        text = statement.text if statement else query
        return Progress(
            self._script.location(statement.start if statement else None),
            now - since,
            now - self._started,
            first_words(text) if text else None,
            number if statement else None,
            total or None,
            sight.waits_for,
            "at its end" if is_over else sight.phase,
            sight.percent,
            sight.blockers,
        )
