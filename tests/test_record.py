"""A record is what `typing.NamedTuple` makes of the same class."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from flux.record import Record


class Named(NamedTuple):
    """What is copied."""

    id: str
    size: int = 1
    tags: tuple[str, ...] = ()

    @property
    def twice(self) -> int:
        """A property."""
        return 2 * self.size

    @classmethod
    def of(cls, id: str) -> Any:
        """A class method."""
        return cls(id, 7)


class Recorded(Record):
    """What is copied."""

    id: str
    size: int = 1
    tags: tuple[str, ...] = ()

    @property
    def twice(self) -> int:
        """A property."""
        return 2 * self.size

    @classmethod
    def of(cls, id: str) -> Any:
        """A class method."""
        return cls(id, 7)


class Shown(Record):
    """A record with a text of its own."""

    id: str

    def __repr__(self) -> str:
        return f"<{self.id}, {super().__repr__()}>"


@pytest.mark.parametrize(
    "act",
    [
        lambda make: make("a"),
        lambda make: make("a", 2),
        lambda make: make("a", 2, ("b",)),
        lambda make: make("a", tags=("b",)),
        lambda make: make(tags=("b",), id="a"),
        lambda make: make._make(["a", 2, ()]),
        lambda make: make("a")._replace(size=3, id="b"),
        lambda make: make.of("a"),
        lambda make: make("a", 4).twice,
        lambda make: make("a")._asdict(),
        lambda make: make("a") == make("a", 1),
        lambda make: make("a") < make("b"),
        lambda make: hash(make("a")),
        lambda make: (make._fields, make._field_defaults, make.__match_args__, make.__doc__),
        lambda make: [*make("a")],
        lambda make: copy.deepcopy(make("a", tags=("b",))),
        lambda make: pickle.loads(pickle.dumps(make("a", 5))),  # noqa: S301 - its own
        lambda make: type(make("a")._replace(size=2)) is make,
        lambda make: type(pickle.loads(pickle.dumps(make("a")))) is make,  # noqa: S301 - its own
        lambda make: repr(make("a", tags=("b",))).replace(make.__name__, "X"),
    ],
)
def test_it_is_the_same(act: Callable[[Any], object]) -> None:
    assert act(Recorded) == act(Named)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda make: make(), "Recorded needs id"),
        (lambda make: make(size=2), "Recorded needs id"),
        (lambda make: make("a", 1, (), 3), "Recorded has 3 fields, not 4"),
        (lambda make: make("a", id="b"), "Recorded got id twice"),
        (lambda make: make("a", other=1), "Recorded got other and has no such field"),
        (lambda make: make("a")._replace(other=1), "Recorded has no field other"),
    ],
)
def test_what_is_wrong_is_refused_as_there(act: Callable[[Any], object], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as theirs:
        act(Named)
    with pytest.raises(theirs.type) as ours:
        act(Recorded)
    assert str(ours.value) == message


@pytest.mark.parametrize("name", ["id", "other", "twice"])
def test_it_is_frozen(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Recorded("a"), name, 1)


def test_it_is_taken_apart_by_match() -> None:
    match Recorded("a", 2):
        case Recorded(id, size=size):
            assert (id, size) == ("a", 2)


def test_what_it_defines_itself_is_its_own() -> None:
    assert repr(Shown("a")) == "<a, Shown(id='a')>"
