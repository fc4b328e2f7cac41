"""What a user is told: the place, the line, the caret, the problems, the hint."""

from __future__ import annotations

import inspect
import pickle
from copy import copy

import pytest

from flux import exceptions
from flux.exceptions import (
    FluxMigrationException,
    InvalidConfigurationError,
    Location,
    MigrationApplyError,
    MigrationLockError,
    Problem,
)

_TEXT = "one\ntwo\n\nfour"


@pytest.mark.parametrize(
    ("offset", "line", "column", "source"),
    [
        pytest.param(0, 1, 1, "one", id="first character"),
        pytest.param(2, 1, 3, "one", id="last of a line"),
        pytest.param(3, 1, 4, "one", id="the line ending itself"),
        pytest.param(4, 2, 1, "two", id="first of a line"),
        pytest.param(8, 3, 1, "", id="an empty line"),
        pytest.param(12, 4, 4, "four", id="last line"),
        pytest.param(13, 4, 5, "four", id="the end of the text"),
    ],
)
def test_location_of_offset(offset: int, line: int, column: int, source: str) -> None:
    assert Location.of_offset("x.sql", _TEXT, offset) == Location("x.sql", line, column, source)


def test_location_of_offset_in_no_text() -> None:
    assert Location.of_offset("x.sql", "", 0) == Location("x.sql", 1, 1, "")


@pytest.mark.parametrize(
    ("location", "text"),
    [
        pytest.param(Location("a/x.sql"), "a/x.sql", id="file"),
        pytest.param(Location("a/x.sql", 3), "a/x.sql:3", id="line"),
        pytest.param(Location("a/x.sql", 3, 4), "a/x.sql:3:4", id="column"),
        pytest.param(
            Location("x.py", within="apply()"), "x.py (in what apply() gave)", id="within"
        ),
        pytest.param(
            Location("x.py", 3, within="apply()"),
            "x.py (line 3, in what apply() gave)",
            id="line within",
        ),
        pytest.param(
            Location("x.py", 3, 4, within="undo()"),
            "x.py (line 3, column 4, in what undo() gave)",
            id="column within",
        ),
        pytest.param(Location("x", 3, 4).without_column(), "x:3", id="column taken away"),
    ],
)
def test_location_as_text(location: Location, text: str) -> None:
    assert str(location) == text


@pytest.mark.parametrize(
    ("location", "drawing"),
    [
        pytest.param(Location("x", 3), "", id="no source"),
        pytest.param(Location("x", 3, None, "SELECT x"), "3 | SELECT x", id="no column"),
        pytest.param(Location("x", 3, 1, "SELECT x"), "3 | SELECT x\n  | ^", id="first column"),
        pytest.param(
            Location("x", 12, 8, "SELECT x"), "12 | SELECT x\n   |        ^", id="two digits"
        ),
        pytest.param(
            Location("x", 3, 9, "SELECT x"), "3 | SELECT x\n  |         ^", id="behind the line"
        ),
        pytest.param(
            Location("x", 3, 3, "\t\tx"), "3 |         x\n  |         ^", id="after two tabs"
        ),
        pytest.param(
            Location("x", 3, 4, "a\tbc"), "3 | a   bc\n  |      ^", id="a tab within the line"
        ),
        pytest.param(
            Location("x", 3, 150, "a" * 100 + "b" * 49 + "!" + "c" * 500),
            f"3 | {'a' * 10}{'b' * 49}!{'c' * 40}\n  | {' ' * 59}^",
            id="a long line is cut around the column",
        ),
        pytest.param(
            Location("x", 3, None, "a" * 500), f"3 | {'a' * 100}", id="a long line without column"
        ),
        pytest.param(
            Location("x", 3, 60, "a" * 200), f"3 | {'a' * 100}\n  | {' ' * 59}^", id="at the cut"
        ),
    ],
)
def test_location_drawing(location: Location, drawing: str) -> None:
    """The caret stands below the column, and both are in sight."""
    assert location.drawing() == drawing


_PLACE = Location("x.sql", 3, 8, "SELECT y")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(FluxMigrationException("it broke"), "it broke", id="message"),
        pytest.param(
            FluxMigrationException("it broke", location=Location("x.sql"), hint="mend it"),
            "x.sql: it broke\nhint: mend it",
            id="place and hint",
        ),
        pytest.param(
            FluxMigrationException("it broke", location=_PLACE, hint="mend it"),
            "x.sql:3:8: it broke\n    3 | SELECT y\n      |        ^\nhint: mend it",
            id="drawing",
        ),
        pytest.param(
            FluxMigrationException("it broke", location=Location("x", 1, 3, "a\fb\u2028c")),
            "x:1:3: it broke\n    1 | a\fb\u2028c\n      |   ^",
            id="a line with other separators stays one line",
        ),
        pytest.param(
            FluxMigrationException(
                "2 problems",
                hint="see to both",
                problems=(
                    Problem("late", ("a",), "a is late", "rename it", _PLACE),
                    Problem("missing", ("b",), "b is missing"),
                ),
            ),
            "2 problems\n"
            "- x.sql:3:8: a is late\n"
            "      3 | SELECT y\n"
            "        |        ^\n"
            "  hint: rename it\n"
            "- b is missing\n"
            "hint: see to both",
            id="problems",
        ),
        pytest.param(
            FluxMigrationException.of(
                (Problem("late", ("a",), "a is late", "rename it", _PLACE),), "1 problem"
            ),
            "x.sql:3:8: a is late\n    3 | SELECT y\n      |        ^\nhint: rename it",
            id="one problem is the error itself",
        ),
        pytest.param(
            MigrationApplyError("applying b failed: no", id="b", state="rolled back"),
            "applying b failed: no\nstate: rolled back",
            id="a failed migration",
        ),
        pytest.param(
            MigrationApplyError(
                "applying b failed: no",
                id="b",
                state="rolled back",
                done=("pre-apply/x", "a"),
                location=_PLACE,
                hint="mend it",
            ),
            "x.sql:3:8: applying b failed: no\n"
            "    3 | SELECT y\n"
            "      |        ^\n"
            "hint: mend it\n"
            "done before it: pre-apply/x, a\n"
            "state: rolled back",
            id="a failed migration after others",
        ),
    ],
)
def test_error_as_text(error: FluxMigrationException, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(InvalidConfigurationError("no", location=_PLACE, hint="mend it"), id="plain"),
        pytest.param(MigrationLockError("no", holder="pid 3", hint="wait"), id="lock"),
        pytest.param(
            MigrationApplyError("no", id="b", state="rolled back", done=("a",)), id="apply"
        ),
    ],
)
def test_errors_survive_the_way_out_of_a_worker_process(error: FluxMigrationException) -> None:
    """A process pool that cannot unpickle an error breaks, and the error is lost."""
    for twin in (pickle.loads(pickle.dumps(error)), copy(error)):  # noqa: S301 - our own
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_the_tree_at_the_top_of_the_room_is_the_tree() -> None:
    drawn = {
        line.split("── ")[-1].split()[0]: len(line) - len(line.lstrip("│ └├─"))
        for line in (exceptions.__doc__ or "").splitlines()
        if "Error" in line or "Exception" in line
    }

    def depth(class_: type) -> int:
        return len([base for base in class_.__mro__ if issubclass(base, FluxMigrationException)])

    real = {
        name: (depth(class_) - 1) * 4
        for name, class_ in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(class_, FluxMigrationException)
    }
    assert drawn == real
