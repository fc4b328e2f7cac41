"""Running a step so that Ctrl-C ends it at once, and not when its statement ends.

While a driver waits for the server, no Python code runs, and so no signal handler. The step
therefore runs in a thread of its own; the main thread waits, and cancels it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn

#: Seconds that a step gets to end after each way of asking it to.
_GRACE = 1.0
_TIMES = 10


class Interruptible:
    """Calls functions in a thread, one at a time; a KeyboardInterrupt meanwhile ends them.

    First `cancel` asks the database to end the statement, then Python code in the thread is
    interrupted. For what does not end by either, `abandon` is called, which must end the process:
    the connection cannot be closed under a thread that uses it, and dies with the process.
    """

    def __init__(self, cancel: Callable[[], None], abandon: Callable[[], NoReturn]) -> None:
        self._cancel = cancel
        self._abandon = abandon
        #: Whether an interruption came. A step may have been done all the same.
        self.was_interrupted = False

    def __call__(self, act: Callable[[], None]) -> None:
        """Call `act`. Raises what it raises, and KeyboardInterrupt if that ended it."""
        failures: list[BaseException] = []
        # Not Thread.join, which before Python 3.13 takes a thread for ended when a signal comes.
        done = threading.Event()

        def work() -> None:
            try:
                act()
            except BaseException as error:
                failures.append(error)
            finally:
                done.set()

        thread = threading.Thread(target=work, name="flux-step", daemon=True)
        try:
            thread.start()
            # In pieces: on Windows a wait without limit sees no signal.
            while not done.wait(0.5):
                pass
        except KeyboardInterrupt:
            self.was_interrupted = True
            self._end(done, thread.ident or 0)
        if failures:
            if self.was_interrupted:
                raise KeyboardInterrupt from failures[0]
            raise failures[0]

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
