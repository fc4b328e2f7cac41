"""The terminal: whether one is there, how to ask at it, and in which colours to write to it."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from flux.render import Palette


def can_ask() -> bool:
    """Whether somebody is there to answer."""
    return _is_terminal(sys.stdin) and question_stream() is not None


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def question_stream() -> TextIO | None:
    """Where a question is seen: standard output, or error where the output goes elsewhere."""
    return next(filter(_is_terminal, (sys.stdout, sys.stderr)), None)


def ask(question: str) -> bool:
    """Ask, and wait for the answer; anything but yes is no."""
    # Not as input's own prompt, which goes to standard error.
    print(f"{question} [y/N] ", end="", flush=True, file=question_stream())
    try:
        answer = input()
    except EOFError:
        print(file=question_stream())
        return False
    return answer.strip().lower() in ("y", "yes")


def palette_for(stream: TextIO | None) -> Palette:
    """Colours where the stream is a terminal, unless NO_COLOR or FORCE_COLOR say otherwise."""
    from flux.render import COLOURED, PLAIN

    if os.environ.get("NO_COLOR"):
        return PLAIN
    is_terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    wants = os.environ.get("FORCE_COLOR") or is_terminal
    return COLOURED if wants else PLAIN


def make_streams_robust() -> None:
    """An id that the terminal's encoding lacks is shown escaped, rather than ending flux."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
