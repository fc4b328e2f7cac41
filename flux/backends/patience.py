"""Waiting in turn: when to try again, when to tell of it, and what is worth waiting for."""

from __future__ import annotations

import re
import time

#: Seconds between two tries, at first and at last.
_SHORTEST, _LONGEST = 0.05, 1.0
#: Seconds after which a wait is told of again; each time twice as many.
_NEXT_WORD = 10.0

# The words of libpq and of operating systems, which drivers pass on, and of PostgreSQL for SQLSTATE
# 57P03 (cannot_connect_now), which drivers do not give of a connection that failed.
_NOT_YET = re.compile(
    r"""(?isx) connection\ refused | actively\ refused
    | could\ not\ translate\ host\ name | name\ resolution | name\ or\ service\ not\ known
    | nodename\ nor\ servname | getaddrinfo\ failed | no\ address\ associated
    | socket .* no\ such\ file | no\ route\ to\ host | host\ is\ down | is\ unreachable
    | timed\ out | timeout\ expired
    | connection\ reset | server\ closed\ the\ connection | broken\ pipe
    | the\ database\ system\ is\ (?:starting|shutting|not\ (?:yet\ )?accepting|in\ recovery)
    | server_login_retry | connect\ failed"""
)
#: With several servers, or several addresses of one, drivers list what each of them said.
_EACH_SERVER = re.compile(r"(?=connection to server )")


class Patience:
    """One wait of at most `limit` seconds, with growing pauses that differ between processes."""

    def __init__(self, limit: float, *, started: float | None = None) -> None:
        """`started` is the moment of `time.monotonic` from which it counts; by default now."""
        self.limit = limit
        self._started = time.monotonic() if started is None else started
        self._pause = _SHORTEST
        self._next_word = 0.0

    @property
    def waited(self) -> float:
        """The seconds so far."""
        return time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        """Whether it has been waited for long enough."""
        return self.waited >= self.limit

    @property
    def is_new(self) -> bool:
        """Whether nothing has been told of this wait yet."""
        return self._next_word == 0

    @property
    def is_due(self) -> bool:
        """Whether it is worth a word: at first, and then now and then."""
        return self.waited >= self._next_word

    def note_word(self) -> None:
        """Note that the wait was told of."""
        self._next_word = max(_NEXT_WORD, 2 * self._next_word)

    def pause(self) -> None:
        """Sleep until the next try, or the end."""
        import random

        left = max(0.0, self.limit - self.waited)
        time.sleep(min(self._pause * random.uniform(0.5, 1.5), left))  # noqa: S311 - jitter
        self._pause = min(self._pause * 1.5, _LONGEST)


def may_be_starting(message: str) -> bool:
    """Whether a failure to connect may be that of a database that is still starting. Pure.

    Of several servers the last one counts: the driver goes on to the next only from one that
    does not answer.
    """
    last = _EACH_SERVER.split(message)[-1]
    return _NOT_YET.search(last) is not None
