"""The nouns: migrations, repeatables, their scripts, ids, hashes and directives. No I/O.

`docs/formats.md` holds the hash's input and the directives as a contract.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from flux.digest import sha256
from flux.exceptions import (
    IrreversibleMigrationError,
    Location,
    MigrationDirectoryCorruptedError,
    MigrationLoadingError,
    Problem,
)
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import datetime
    from typing import Any, Literal, TypeAlias

Order: TypeAlias = "Literal['text', 'natural']"
#: What to do where the history has migrations that are not on disk.
Missing: TypeAlias = "Literal['refuse', 'allow-newer']"
#: What to do with migrations that are pending, but older than the newest applied one.
Late: TypeAlias = "Literal['refuse', 'allow', 'prove']"
#: Where scripts lie that are no migrations; those of `tests` are run by `flux test` alone.
Placement: TypeAlias = "Literal['pre-apply', 'post-apply', 'tests']"

BOM = "\ufeff"
#: Characters of a text that is worth the import of OpenSSL, and how many are hashed at once.
_LONG = 1 << 11
_PIECE = 1 << 20
_WHITE_SPACE = " \t\n\r\f\v"
# Patterns that few files need are compiled when they are used.
_LEADING_COMMENTS = {
    ".sql": r"(?s:\s+|--[^\n]*|/\*.*?\*/)*",
    ".py": r"(?:\s+|#[^\n]*)*",
}
_MENTIONS_DIRECTIVE = r":(?<=[fF][lL][uU][xX]:)"  # a colon is found fast
_DIRECTIVE_LINES = {
    ".sql": r"(?im)--[ \t]*flux:(.*)$",
    ".py": r"(?im)#[ \t]*flux:(.*)$",
}
_DURATIONS = ("lock_timeout", "statement_timeout")
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0}
_NUMBER = re.compile(r"(\d+)")
_NUMERIC_PREFIX = re.compile(r"([A-Za-z]*)(\d+(?:[._-]\d+)*)", re.ASCII)


class Directives(Record):
    """What a file's leading comments ask of flux; the README explains each.

    The timeouts are in seconds, 0 for none; None leaves them to the configuration.
    """

    no_transaction: bool = False
    foreign_keys: bool = False
    on_change: bool = False
    lock_timeout: float | None = None
    statement_timeout: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that were given, by their field."""
        if self == _NONE_GIVEN:
            return {}
        default = _NONE_GIVEN._asdict()
        return {name: value for name, value in self._asdict().items() if value != default[name]}

    def __or__(self, other: Directives) -> Directives:
        if other is _NONE_GIVEN:
            return self
        return Directives(**{**other.given, **self.given})


_NONE_GIVEN = Directives()


class Script(Record):
    """What one file says to do in one direction: SQL text, or a function of the connection.

    `path` is the file as it is shown to users; `within` names the Python function that gave
    the text. `raw` is the text as it was read; `text` has its line endings normalised and its
    byte order mark dropped. Exactly one of `text` and `function` is not None; `source` is the
    text of the file that defines the function.
    """

    path: str
    hash: str
    text: str | None = None
    raw: str | None = None
    function: Callable[[Any], object] | None = None
    directives: Directives = _NONE_GIVEN
    within: str | None = None
    source: str | None = None

    @classmethod
    def from_text(
        cls,
        raw: str,
        path: str,
        *,
        within: str | None = None,
        directives: Directives = _NONE_GIVEN,
    ) -> Script:
        """A script of SQL text; `directives` come from the file around it and are added to.

        Raises `MigrationLoadingError` for an unknown directive.
        """
        text = normalise(raw)
        found = read_directives(text, ".sql", path, within=within)
        # By their places: there may be thousands of them.
        return cls._make((path, text_hash(text), text, raw, None, found | directives, within, None))

    @property
    def is_empty(self) -> bool:
        """Whether the text holds comments at most, as an untouched file of `flux new` does."""
        leading = self.text and re.match(_LEADING_COMMENTS[".sql"], self.text)
        return self.text == "" or bool(leading and leading.end() == len(self.text or ""))

    @property
    def legacy_hash(self) -> str | None:
        """The hash that flux-migrations 0.0.3 recorded; None for what it could not run."""
        if self.raw is None:
            return None
        from hashlib import md5

        return md5(self.raw.encode(), usedforsecurity=False).hexdigest()

    def location(self, offset: int | None = None) -> Location:
        """The place of a 0-based offset of `text`, or the file as a whole."""
        if offset is None or self.text is None:
            return Location(self.path, within=self.within)
        return Location.of_offset(self.path, self.text, offset, within=self.within)


class OnDisk(Record):
    """What is kept of a script whose text is not: its file, its hash, and how to read it again.

    `read` is given the `path`, and the directory that it counts from, with a slash at its end.
    """

    path: str
    hash: str
    read: Callable[[str, str], Script]
    root: str = ""


class Migration(Record):
    """One named change on disk: an id, the script to apply, perhaps a script to undo.

    `kept` is the script to apply, or where to find it. `read_undo` reads the undo from disk when
    it is needed; None where there is no undo.
    """

    id: str
    kept: Script | OnDisk
    read_undo: Callable[[], Script] | None = None

    @classmethod
    def from_text(cls, id: str, apply: str, undo: str | None = None) -> Migration:
        """A migration that lives in memory, for programs and tests."""
        read_undo = None
        if undo is not None:
            undo_script = Script.from_text(undo, f"{id}.undo.sql")

            def read_undo() -> Script:
                return undo_script

        return cls(id, Script.from_text(apply, f"{id}.sql"), read_undo)

    @property
    def hash(self) -> str:
        """The SHA-256 that the history keeps for this migration, 64 hex digits."""
        return self.kept.hash

    @property
    def path(self) -> str:
        """The file the migration was read from, as shown to users."""
        return self.kept.path

    @property
    def script(self) -> Script:
        """The script to apply, with its text: read again at each look where that is not kept.

        Raises `MigrationLoadingError`, and `MigrationDirectoryCorruptedError` where the file has
        changed since its hash was taken.
        """
        kept = self.kept
        if isinstance(kept, Script):
            return kept
        script = kept.read(kept.path, kept.root)
        _require_unchanged(self.id, script, kept.hash)
        return script

    def loaded(self) -> Migration:
        """The same with the text of its script. Raises what `script` raises."""
        return self if isinstance(self.kept, Script) else self._replace(kept=self.script)

    def undo_script(self) -> Script:
        """Read the undo. Raises `IrreversibleMigrationError` where there is none."""
        if self.read_undo is None:
            raise IrreversibleMigrationError(f"{self.id} has no undo", location=Location(self.path))
        return self.read_undo()

    def matches(self, recorded_hash: str) -> bool:
        """Whether a hash in the history is this migration's, by the rule it was written with."""
        if recorded_hash == self.kept.hash:
            return True
        return is_legacy_hash(recorded_hash) and recorded_hash == self.script.legacy_hash


def _require_unchanged(id: str, script: Script, hash: str) -> None:
    """See that a migration that was read again is the one that had this hash at first.

    Raises `MigrationDirectoryCorruptedError` where it is not: nothing else may run in its place.
    """
    if script.hash != hash:
        problem = Problem(
            "changed",
            (id,),
            f"{id} has changed since flux looked at it",
            "give the command again, which looks at the file as it is now",
            Location(script.path),
        )
        raise MigrationDirectoryCorruptedError.of((problem,), problem.message)


class Repeatable(Record):
    """A script of `pre-apply/` or `post-apply/`, run around batches; it has no undo."""

    id: str
    placement: Placement
    script: Script

    @property
    def name(self) -> str:
        """Where it lies and its id: `post-apply/views`."""
        return f"{self.placement}/{self.id}"

    @property
    def hash(self) -> str:
        """The hash of its text, by the same rule as a migration's."""
        return self.script.hash

    @property
    def path(self) -> str:
        """The file the repeatable was read from, as shown to users."""
        return self.script.path


class AppliedMigration(Record):
    """A row of the history: what was applied, with which hash, and when.

    `applied_at` carries a time zone where the database keeps one.
    """

    id: str
    hash: str
    applied_at: datetime.datetime


def normalise(raw: str) -> str:
    """The text with `\\n` line endings and without a byte order mark: what is sent."""
    text = raw.removeprefix(BOM)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def text_hash(text: str) -> str:
    """The hash of a normalised text: SHA-256 of its UTF-8, white space at its end stripped."""
    if len(text) > _LONG:
        return _hash_in_pieces(text)
    return sha256(text.rstrip(_WHITE_SPACE).encode()).hexdigest()


def _hash_in_pieces(text: str) -> str:
    """The same for a long text, which is not copied as a whole."""
    from hashlib import sha256

    end = len(text)
    while end and text[end - 1] in _WHITE_SPACE:
        end -= 1
    hashed = sha256()
    for start in range(0, end, _PIECE):
        hashed.update(text[start : min(end, start + _PIECE)].encode())
    return hashed.hexdigest()


def is_set_aside(id: str) -> bool:
    """Whether a name is none of a migration by today's rules, as a helper's `_x` is."""
    return id.startswith(("_", "."))


def is_legacy_hash(recorded_hash: str) -> bool:
    """Whether flux-migrations 0.0.3 wrote this hash (MD5, 32 hex digits)."""
    return len(recorded_hash) == 32


def read_directives(
    text: str, ending: Literal[".sql", ".py"], path: str, *, within: str | None = None
) -> Directives:
    """The directives in the comments at the start of a file, or of a text a file gave.

    Raises `MigrationLoadingError` for a directive that is not known, and for one that comes
    too late in the file to be heeded.
    """
    if ":" not in text or not re.search(_MENTIONS_DIRECTIVE, text):
        return _NONE_GIVEN
    leading = re.match(_LEADING_COMMENTS[ending], text)
    end = leading.end() if leading else 0
    given: dict[str, Any] = {}
    for line in re.finditer(_DIRECTIVE_LINES[ending], text):
        location = Location.of_offset(path, text, line.start(), within=within)
        words = re.sub(r"\s*=\s*", "=", line[1]).replace(",", " ").split()
        parsed = {word: _parse_directive(word) for word in words}
        unknown = [word for word, value in parsed.items() if value is None]
        if line.start() >= end:
            if words and not unknown:
                raise MigrationLoadingError(
                    "a directive stands below the first statement, where it has no effect",
                    location=location,
                    hint="move it to the comments at the top of the file",
                )
            continue
        if unknown:
            raise MigrationLoadingError(
                f"unknown directive {unknown[0]!r}",
                location=location,
                hint=_what_was_meant(unknown[0]),
            )
        given |= dict(filter(None, parsed.values()))
    return Directives(**given)


def _what_was_meant(word: str) -> str:
    """The directive that a mistyped one is like, or else all that there are."""
    from difflib import get_close_matches

    examples = {
        field.replace("_", "-"): "=5s" if field in _DURATIONS else ""
        for field in Directives._fields
    }
    name = word.partition("=")[0]
    near = get_close_matches(name, examples, n=1)
    # A name that is right is not mistyped, but its value.
    if near and near[0] != name:
        return f"did you mean {near[0] + examples[near[0]]!r}?"
    return "there are: " + ", ".join(name + example for name, example in examples.items())


def _parse_directive(word: str) -> tuple[str, bool | float] | None:
    """The field of a directive and its value: `lock-timeout=500ms` is 0.5 seconds."""
    name, equals, value = word.partition("=")
    field = name.replace("-", "_")
    if field not in Directives._fields or bool(equals) != (field in _DURATIONS):
        return None
    if not equals:
        return field, True
    duration = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|min)?", value)
    return (field, float(duration[1]) * _UNITS[duration[2] or "s"]) if duration else None


def sort_key(order: Order) -> Callable[[str], Any]:
    """The key that sorts ids: as text by code points, or with their numbers as numbers."""
    if order == "natural":
        return _natural_key
    return str


def _natural_key(id: str) -> tuple[list[tuple[int, str]], str]:
    parts = _NUMBER.split(id)
    # Odd places are runs of digits. The id itself decides between `1_x` and `01_x`.
    return [(int(p), "") if i % 2 else (-1, p) for i, p in enumerate(parts)], id


def numeric_prefix(id: str) -> tuple[str, tuple[int, ...]] | None:
    """The letters and numbers that an id starts with: `v1.10_x` gives `("v", (1, 10))`."""
    match = _NUMERIC_PREFIX.match(id)
    return (match[1], _numbers(match[2])) if match else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, _NUMBER.findall(text)))


def misordered(ids: Sequence[str]) -> list[tuple[str, str]]:
    """Neighbours in text order whose numbers say the opposite: `10_x` before `2_y`."""
    ordered = sorted(ids)
    width = len(ordered[0]) - len(ordered[0].lstrip("0123456789")) if ordered else 0
    return [
        (first, second)
        for first, second in pairwise(ordered)
        if not _have_numbers_in_order(first, second, width) and _says_the_opposite(first, second)
    ]


def _have_numbers_in_order(first: str, second: str, width: int) -> bool:
    """Whether two ids begin with numbers that grow, as text of `width` digits tells at once.

    In most directories all do, and to look closer takes long for thousands.
    """
    one, other = first[:width], second[:width]
    return (
        one < other and one.isdigit() and other.isdigit() and not first[width : width + 1].isdigit()
    )


def _says_the_opposite(first_id: str, second_id: str) -> bool:
    """Whether the first of two ids in text order has the greater number."""
    first, second = map(_NUMERIC_PREFIX.match, (first_id, second_id))
    if not first or not second:
        return False
    letters, one = first.groups()
    others, other = second.groups()
    if letters != others:
        return False
    # Numbers of one length are in their own order; to read them all would take long.
    is_padded = len(one) == len(other) and one.isdigit() and other.isdigit()
    return not is_padded and _numbers(one) > _numbers(other)


def fold(id: str) -> str:
    """The form in which two ids that differ only by case or Unicode form are the same."""
    if id.isascii():
        return id.lower()
    from unicodedata import normalize

    return normalize("NFC", normalize("NFC", id).casefold())
