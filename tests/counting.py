"""Amounts of work that are the same in every run: calls of functions, and bytes at their peak."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType

_CALLS = frozenset({"call", "c_call"})


def count_calls(work: Callable[[], object]) -> int:
    """How many functions of Python and C this thread calls until `work` is done."""
    count = 0

    def profile(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event in _CALLS

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def peak_memory(work: Callable[[], object]) -> int:
    """How many bytes Python holds at most until `work` is done, beyond those that it held before.

    What the C libraries of drivers hold is not among them.
    """
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()
