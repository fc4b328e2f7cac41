"""What the messages of a batch on PostgreSQL consist of: which migrations go together, and as what.

How each is written does not hang on which others are beside it. So those of the next message are
written while the server is busy with the one before.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count

from flux.backends.postgres_driver import is_plain
from flux.backends.postgres_flags import strike
from flux.backends.postgres_leftovers import Leftovers
from flux.backends.postgres_lock import FENCE_SETTING
from flux.backends.postgres_message import Message
from flux.backends.postgres_run import ScriptRun, file_of, patience_for
from flux.backends.postgres_watch import shown
from flux.migration import Migration, Script
from flux.plan import Step
from flux.record import Record
from flux.statements import Statement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flux.backends.postgres import PostgresBackend

#: Migrations in a message: a server that logs its statements writes the whole message for each of
#: them. After a slow one there are fewer, and then that many times more.
_MOST = 50
_GROWTH = 4
#: Seconds that a message should take, and the characters of the texts in it.
_SECONDS = 1.0
_CHARACTERS = 256 * 1024
#: Seconds; a script that waits no longer for a lock is watched more closely, and so alone.
_LEAST_PATIENCE = 0.5
#: The numbers of statements in a message: those of each migration begin so far apart, and come
#: round after so many. A text has fewer, for each takes two characters at least.
_APART = _CHARACTERS
_ROUND = 1000


class Part(Record):
    """A migration in a message: its step, its script, and what of the message it is."""

    step: Step
    migration: Migration
    script: Script
    statements: list[Statement]
    message: Message
    #: The number that its first statement has in the message.
    first: int

    def number_of(self, place: int) -> int | None:
        """The number in its script of a statement, by that in the message; None of another's.

        One more than there are is its end.
        """
        number = place - self.first + 1
        return number if 1 <= number <= len(self.statements) + 1 else None


class Parts:
    """The parts of the messages of one batch."""

    def __init__(self, backend: PostgresBackend) -> None:
        self._backend = backend
        #: How many go into the next message at most, by how long those before took.
        self.most = _MOST
        self._places = count()
        #: What may come after the message that is written now, and what of it is written, by what
        #: identifies the step.
        self._next: Sequence[Step] = ()
        self._ahead: dict[int, Part] = {}

    def note(self, count: int, seconds: float) -> None:
        """Take how long a message of so many has taken."""
        in_time = int(_SECONDS * count / max(seconds, 1e-9))
        self.most = max(1, min(in_time, _GROWTH * self.most, _MOST))

    def count_together(self, steps: Sequence[Step]) -> int:
        """How many of the next steps go in one message, at least one. Opens nothing."""
        together = self._count(steps)
        self._next = steps[together : together + _MOST]
        return together

    def _count(self, steps: Sequence[Step]) -> int:
        backend = self._backend
        held = backend.held
        if held.pid is None or not held.can_mark or backend.session.settings is not None:
            return 1
        characters = 0
        files: set[str] = set()
        for number, step in enumerate(steps[: self.most]):
            text = _text_for_company(backend, step)
            file = shown(file_of(step.script))
            if text is None or file in files or characters + len(text) > _CHARACTERS:
                return max(1, number)
            characters += len(text)
            files.add(file)
        return min(len(steps), self.most)

    def write(self, steps: Sequence[Step]) -> list[Part]:
        """The parts for steps that go together."""
        # None of them leaves anything but settings.
        self._backend.session = self._backend.session.before(steps[0].script, self._backend)
        ahead = self._ahead
        return [ahead.pop(id(s)) if id(s) in ahead else self._write(s) for s in steps]

    @contextmanager
    def writing_ahead(self) -> Iterator[None]:
        """Write what may come next, in a thread, while the block runs."""
        if not self._next:
            yield
            return
        # A thread that starts is waited for: it would keep what sends the message from the
        # interpreter until all is written.
        begins = threading.Event()
        thread = threading.Thread(
            target=self._write_ahead, args=(begins,), name="flux-ahead", daemon=True
        )
        thread.start()
        begins.set()
        try:
            yield
        finally:
            thread.join()

    def _write_ahead(self, begins: threading.Event) -> None:
        begins.wait()
        characters = 0
        with suppress(Exception):  # raised again when it is its turn
            for step in self._next:
                text = _text_for_company(self._backend, step)
                # The connection, which quotes what has to be quoted, is busy.
                if text is None or not is_plain(step.name):
                    return
                characters += len(text)
                if characters > _CHARACTERS:
                    return
                if id(step) not in self._ahead:
                    self._ahead[id(step)] = self._write(step)

    def _write(self, step: Step) -> Part:
        backend, script = self._backend, step.script
        migration: Any = step.subject  # repeatables go alone
        first = next(self._places) % _ROUND * _APART + 1
        # The guard stands in front of the message, and the record says more than that of one alone.
        run = ScriptRun(backend, script, guard="", record="")
        statements, [message] = run.compose_in_one(script.text or "", first)
        record = backend.sql.insert if step.action == "apply" else backend.sql.delete_one
        returning = [strike(first + len(statements))] if backend.held.can_flag else []
        text = message.text + record(migration, *returning)
        return Part(step, migration, script, statements, message._replace(text=text), first)


def _text_for_company(backend: PostgresBackend, step: Step) -> str | None:
    """The text of a step that may share a message with others; None of one that goes alone."""
    script = step.script
    if not isinstance(step.subject, Migration) or step.half is not None or script.text is None:
        return None
    if script.directives.no_transaction or len(script.text) > _CHARACTERS:
        return None
    if Leftovers.of(script).kinds:
        return None
    if _needs_the_session(script.text.lower()):
        return None
    if patience_for(backend, script) < _LEAST_PATIENCE:
        return None
    return script.text


def _needs_the_session(text: str) -> bool:
    """Whether a text, in lower case, has rows that would follow the message, or what flux sets."""
    is_copy = "copy" in text and "std" in text
    # Patterns are slow: most texts have none of these words.
    is_reset = "reset" in text and re.search(r"\breset\b", text) is not None
    return is_copy or is_reset or "application_name" in text or FENCE_SETTING in text
