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


def is_completing() -> bool:
    """Whether a shell asks for completions, by the script that `flux completion` gave it."""
    return "_ARGCOMPLETE" in os.environ


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


class StatusLine:
    """A line at a terminal that is rewritten in place, until others are written.

    It is not for a stream that goes elsewhere, nor for a terminal that cannot erase a line.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._is_shown = False

    @property
    def can_rewrite(self) -> bool:
        """Whether there is a terminal, and it can."""
        return _is_terminal(self._stream) and os.environ.get("TERM", "dumb") != "dumb"

    def show(self, *texts: str) -> None:
        """Write a line in place of the one before: the first that fits, or else the last, cut."""
        width = _width(self._stream) - 3  # room for the `^C` that a terminal echoes
        text = next((text for text in texts if _cut(text, width) == text), None)
        self._is_shown = True
        self._write(f"\r{_cut(texts[-1], width) if text is None else text}\x1b[K")

    def clear(self) -> None:
        """Take the line away, if one is shown."""
        if self._is_shown:
            self._is_shown = False
            self._write("\r\x1b[K")

    def _write(self, text: str) -> None:
        print(text, end="", file=self._stream, flush=True)


def _width(stream: TextIO | None) -> int:
    """The columns of a terminal; 80 where it does not say."""
    try:
        return (stream and os.get_terminal_size(stream.fileno()).columns) or 80
    except (OSError, ValueError):
        return 80


def _cut(text: str, width: int) -> str:
    """The beginning of a text that takes up `width` columns at most."""
    from unicodedata import combining, east_asian_width

    end = used = 0
    for end, character in enumerate(text):
        used += 0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1
        if used > width:
            return text[:end]
    return text


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
