"""Fingerprints: a catalog's contents in a comparable, ordered, readable form. Pure.

A backend reads its catalog into items; two fingerprints are compared item by item. What belongs
to an object, as a column does to its table, is an item of its own, so that a difference names
the smallest thing that differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import groupby, starmap, zip_longest
from typing import Literal, NamedTuple


class Item(NamedTuple):
    """One thing in a catalog: its kind, its name, what it belongs to, and all that it is.

    `name` is in SQL's own spelling, with its schema where it has one. `of` is the label of the
    object that it belongs to (`table public.users`), or empty for an object. `definition` says in
    words or SQL everything about it that matters, and may have several lines.
    """

    kind: str
    name: str
    of: str = ""
    definition: str = ""

    @property
    def label(self) -> str:
        """How the item is called in messages, and by the items that belong to it."""
        return f"{self.kind} {self.name}"

    @property
    def object(self) -> str:
        """The label of the object that the item is, or belongs to."""
        return self.of or self.label


class Difference(NamedTuple):
    """An item that is not the same in two fingerprints; None on the side that lacks it."""

    before: Item | None
    after: Item | None

    @property
    def item(self) -> Item:
        """The item, from the side that has it."""
        [item, *_] = filter(None, self)
        return item

    @property
    def kind(self) -> Literal["missing", "extra", "changed"]:
        """What became of the item from the first fingerprint to the second."""
        if self.after is None:
            return "missing"
        return "extra" if self.before is None else "changed"


class Fingerprint(NamedTuple):
    """Everything that a catalog holds, in order: each object, and then what belongs to it."""

    items: tuple[Item, ...] = ()

    @classmethod
    def of(cls, items: Iterable[Item]) -> Fingerprint:
        """The fingerprint of items that come in any order."""
        return cls(tuple(sorted(items, key=_place)))

    def without(self, patterns: Sequence[str]) -> Fingerprint:
        """The same without what the patterns ignore, and without what belongs to that.

        A pattern is a name or a label (`audit.*`, `extension *`), or one behind that of the object
        it belongs to (`table public.users column nick`); in it, `*` stands for any text and `?`
        for any one letter.
        """
        ignored: set[str] = set()
        kept = []
        for item in self.items:  # an object comes before what belongs to it
            if item.of in ignored or _matches(item, patterns):
                ignored.add(item.label)
            else:
                kept.append(item)
        return Fingerprint(tuple(kept))

    def lines(self) -> Iterator[str]:
        """The fingerprint as readable text: each object, and indented what belongs to it."""
        for number, (label, items) in enumerate(groupby(self.items, lambda item: item.object)):
            if number:
                yield ""
            yield label
            for item in items:
                yield from _indented(described(item))


def compare(before: Fingerprint, after: Fingerprint) -> tuple[Difference, ...]:
    """What differs from the first fingerprint to the second, in order.

    Of an object that only one of them has, what belongs to it is not listed once more. Items may
    share a name: those that are the same in both go first, and the others are told in pairs.
    """
    old, new = Counter(before.items), Counter(after.items)
    gone, come = _by_name(old - new), _by_name(new - old)
    found = [
        difference
        for name in gone | come
        for difference in starmap(Difference, zip_longest(gone.get(name, ()), come.get(name, ())))
    ]
    alone = {
        difference.item.label
        for difference in found
        if difference.kind != "changed" and not difference.item.of
    }
    found = [difference for difference in found if difference.item.of not in alone]
    return tuple(sorted(found, key=lambda difference: _place(difference.item)))


def described(item: Item) -> list[str]:
    """The lines that say what an item is; the name of an object itself is in its heading."""
    lines = item.definition.split("\n") if item.definition else []
    if not item.of:
        return lines
    return [" ".join([item.label, *lines[:1]]), *_indented(lines[1:])]


def _indented(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield f"    {line}" if line else ""


def _by_name(items: Counter[Item]) -> dict[tuple[str, ...], list[Item]]:
    """The items of each kind and name, in order."""
    ordered = sorted(items.elements())
    return {name: [*group] for name, group in groupby(ordered, lambda item: item[:3])}


def _place(item: Item) -> tuple[str, bool, Item]:
    return item.object, bool(item.of), item


def _matches(item: Item, patterns: Sequence[str]) -> bool:
    texts = (item.name, item.label, f"{item.of} {item.label}".strip())
    return any(fnmatchcase(text, pattern) for pattern in patterns for text in texts)
