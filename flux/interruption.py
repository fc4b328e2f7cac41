"""Running a step so that Ctrl-C ends it at once, and not when its statement ends.

While a driver waits for the server, no Python code runs, and so no signal handler. The step
therefore runs in a thread of its own; the main thread waits, and cancels it.
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import Any, NoReturn, TypeVar

    _Result = TypeVar("_Result")


#: Seconds that a step gets to end after each way of asking it to.
_GRACE = 1.0
_TIMES = 10
#: Seconds of waiting at a time: on Windows a wait without limit sees no signal.
_PIECE = 0.5


def in_thread(act: Callable[[], _Result], meanwhile: Callable[[], None] | None = None) -> _Result:
    """What `act` gives, for what waits without running Python code and cannot be cancelled.

    `meanwhile` is called while it waits, and does not raise. Raises what `act` raises. An
    interruption ends the waiting at once; the thread is left behind. Only the main thread is ever
    interrupted: in another one, `act` is just called, and `meanwhile` is not.

    Every connection is made in here. It runs no code but the driver's, and so does without what
    the import of `threading` takes.
    """
    if not _is_main_thread():
        return act()
    results: list[_Result] = []
    failures: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def work() -> None:
        try:
            results.append(act())
        except BaseException as error:
            failures.append(error)
        finally:
            done.release()

    _thread.start_new_thread(work, ())
    if meanwhile is not None:
        meanwhile()
    while not done.acquire(timeout=_PIECE):
        pass
    if failures:
        raise failures[0]
    return results[0]


def _is_main_thread() -> bool:
    """Whether this thread is the one that is interrupted.

    Where nobody has imported `threading`, nobody has started another one.
    """
    threading = sys.modules.get("threading")
    return threading is None or threading.current_thread() is threading.main_thread()


def uninterrupted(act: Callable[[], _Result]) -> _Result:
    """What `act` gives, for what would swallow an interruption, as code that C calls may.

    Raises what it raises, and KeyboardInterrupt when it is over, if one came meanwhile.
    """
    if not _is_main_thread():
        return act()
    call, interruption = _Call(act), None
    call.start()
    while not call.done.is_set():
        try:
            call.wait()
        except KeyboardInterrupt as error:
            interruption = error
    if interruption is not None:
        raise interruption from call.failure
    result: _Result = call.result()
    return result


class _Call:
    """A call in a thread of its own."""

    def __init__(self, act: Callable[[], Any]) -> None:
        import threading

        self._act = act
        self._results: list[Any] = []
        self.failure: BaseException | None = None
        # Not Thread.join, which before Python 3.13 takes a thread for ended when a signal comes.
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="flux-step", daemon=True)

    @property
    def thread(self) -> int:
        """The number of the thread; 0 before it runs."""
        return self._thread.ident or 0

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def wait(self) -> None:
        """Return when it is done."""
        while not self.done.wait(_PIECE):
            pass

    def result(self) -> Any:
        """What it gave. Raises what it raised."""
        if self.failure is not None:
            raise self.failure
        return self._results[0]

    def _work(self) -> None:
        try:
            self._results.append(self._act())
        except BaseException as error:
            self.failure = error
        finally:
            self.done.set()


class Interruptible:
    """Calls functions in a thread, one at a time; a KeyboardInterrupt meanwhile ends them.

    A function may call others in the same way: they run in its thread. A thread for each step of a
    batch would take longer than most steps.

    First `cancel` asks the database to end the statement, then Python code in the thread is
    interrupted. For what does not end by either, `abandon` is called, which must end the process:
    the connection cannot be closed under a thread that uses it, and dies with the process.
    """

    def __init__(self, cancel: Callable[[], None], abandon: Callable[[], NoReturn]) -> None:
        self._cancel = cancel
        self._abandon = abandon
        #: Whether an interruption came. A step may have been done all the same.
        self.was_interrupted = False
        #: The thread in which a function runs now, 0 for none, and whether it has called others.
        self._thread = 0
        self._calls_others = False

    def __call__(self, act: Callable[[], None]) -> None:
        """Call `act`. Raises what it raises, and KeyboardInterrupt if that ended it."""
        is_inside = self._thread == _thread.get_ident()
        self._calls_others = is_inside
        try:
            if is_inside:
                act()
            else:
                self._call(act)
        except BaseException as error:
            # A function that calls others hears of an interruption from them.
            if self.was_interrupted and (is_inside or not self._calls_others):
                raise KeyboardInterrupt from error
            raise

    def _call(self, act: Callable[[], None]) -> None:
        """Call `act` in a thread of its own. Raises what it raises."""

        def act_here() -> None:
            self._thread = _thread.get_ident()
            try:
                act()
            finally:
                self._thread = 0

        call = _Call(act_here)
        try:
            call.start()
            call.wait()
        except KeyboardInterrupt:
            self.was_interrupted = True
            self._end(call.done, call.thread)
        call.result()

    def _end(self, done: threading.Event, thread: int) -> None:
        """Return when the thread is done; it is asked more than once, as it may not yet listen."""
        for ask in (self._cancel, partial(_interrupt, thread)):
            try:
                for _ in range(_TIMES):
                    if done.is_set():
                        return
                    ask()
                    if done.wait(_GRACE / _TIMES):
                        return
            except KeyboardInterrupt:
                continue  # once more: the next way, without more patience
        self._abandon()


def _interrupt(thread: int) -> None:
    """Raise KeyboardInterrupt in the Python code that a thread runs."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
    )
