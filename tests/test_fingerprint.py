"""Fingerprints as such: their order, their text, what two of them have that differs."""

from __future__ import annotations

import pytest

from flux.fingerprint import Difference, Fingerprint, Item, compare

USERS = Item("table", "app.users", definition="owner bob")
NAME = Item("column", "name", USERS.label, "text")
TRIGGER = Item("trigger", "check", USERS.label, "begin\n    select 1;\nend")
MOOD = Item("type", "app.mood", definition="enum ('sad')\nowner bob")
AUDIT = Item("table", "audit.log")
AUDITED = Item("column", "at", AUDIT.label, "date")
ALL = Fingerprint.of([AUDITED, TRIGGER, AUDIT, MOOD, NAME, USERS])


def test_each_object_is_followed_by_what_belongs_to_it() -> None:
    assert ALL.items == (USERS, NAME, TRIGGER, AUDIT, AUDITED, MOOD)


def test_lines() -> None:
    assert "\n".join(ALL.lines()) == (
        """\
table app.users
    owner bob
    column name text
    trigger check begin
            select 1;
        end

table audit.log
    column at date

type app.mood
    enum ('sad')
    owner bob"""
    )


def test_nothing_has_no_lines() -> None:
    assert list(Fingerprint().lines()) == []


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        pytest.param([], ALL.items, id="nothing"),
        pytest.param(["audit.*"], (USERS, NAME, TRIGGER, MOOD), id="names"),
        pytest.param(["table audit.log"], (USERS, NAME, TRIGGER, MOOD), id="a label"),
        pytest.param(["table *", "type *"], (), id="kinds"),
        pytest.param(["trigger *"], (USERS, NAME, AUDIT, AUDITED, MOOD), id="a kind within"),
        pytest.param(["app.?sers"], (AUDIT, AUDITED, MOOD), id="a letter"),
        pytest.param(["APP.*", "users"], ALL.items, id="no such name"),
    ],
)
def test_what_is_ignored_takes_along_what_belongs_to_it(
    patterns: list[str], left: tuple[Item, ...]
) -> None:
    assert ALL.without(patterns).items == left


LONGER = NAME._replace(definition="text not null")
OTHER = NAME._replace(definition="bytea")


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        pytest.param(ALL.items, ALL.items[::-1], [], id="the same in another order"),
        pytest.param([USERS, NAME], [USERS, LONGER], [(NAME, LONGER)], id="changed"),
        pytest.param([USERS], [USERS, NAME], [(None, NAME)], id="extra"),
        pytest.param([USERS, NAME], [USERS], [(NAME, None)], id="missing"),
        pytest.param([MOOD], ALL.items, [(None, USERS), (None, AUDIT)], id="with all it has"),
        pytest.param(
            [USERS, NAME],
            [USERS._replace(definition="owner eve")],
            [(USERS, USERS._replace(definition="owner eve")), (NAME, None)],
            id="changed, and something of it missing",
        ),
        pytest.param([NAME, NAME], [NAME], [(NAME, None)], id="one of two"),
        pytest.param([NAME, LONGER], [LONGER], [(NAME, None)], id="one of two that differ"),
        pytest.param([NAME], [LONGER, NAME], [(None, LONGER)], id="another one of that name"),
        pytest.param([NAME, OTHER], [NAME, LONGER], [(OTHER, LONGER)], id="one of two changed"),
    ],
)
def test_compare(
    before: list[Item], after: list[Item], found: list[tuple[Item | None, Item | None]]
) -> None:
    """In order; of what only one of them has, what belongs to it is not listed once more."""
    differences = compare(Fingerprint.of(before), Fingerprint.of(after))
    assert differences == tuple(Difference(*pair) for pair in found)


@pytest.mark.parametrize(
    ("difference", "kind", "item"),
    [
        (Difference(NAME, None), "missing", NAME),
        (Difference(None, NAME), "extra", NAME),
        (Difference(NAME, LONGER), "changed", NAME),
    ],
    ids=["missing", "extra", "changed"],
)
def test_what_became_of_an_item(difference: Difference, kind: str, item: Item) -> None:
    assert (difference.kind, difference.item) == (kind, item)
