"""Results as text and as data: whole texts, and the shapes that `--json` promises."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from flux import render
from flux.exceptions import (
    FluxMigrationException,
    Location,
    MigrationApplyError,
    MigrationLoadingError,
    Problem,
)
from flux.migration import Migration, Repeatable, Script
from flux.plan import Plan, StatusRow, Step
from flux.render import Palette
from flux.results import BatchResult, Status, StepResult

#: Colours that can be read.
SEEN = Palette("<good>", "<attention>", "<bad>", "<faint>", "</>")

_THEN = datetime(2024, 4, 22, 12, 30, 15, 999999)
_AWARE = _THEN.replace(tzinfo=timezone(timedelta(hours=2)))
_LATE = Problem(
    "late", ("2_b",), "2_b is late", "rename it", Location("m/2_b.sql", 3, 8, "SELECT y")
)
_MISSING = Problem("missing", ("4_d",), "4_d is missing")

_MIGRATION = Migration.from_text("1_add-users", "CREATE TABLE u (a int);\n", "\nDROP TABLE u;\n")
_VIEWS = Repeatable(
    "views", "post-apply", Script.from_text("CREATE VIEW v AS\n\n  SELECT 1;", "views.sql")
)
_FUNCTION = Migration(
    "2_fill", Script(path="m/2_fill.py", hash="0" * 64, function=lambda connection: None)
)
_STEPS = (Step("apply", _MIGRATION), Step("apply", _FUNCTION), Step("run", _VIEWS))


def _status(
    *rows: StatusRow,
    problems: tuple[Problem, ...] = (),
    initialized: bool = True,
    unfinished: bool = False,
) -> Status:
    return Status(rows, problems, initialized, unfinished)


# Text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param(_status(), "no migrations", id="nothing"),
        pytest.param(
            _status(StatusRow("1_a", "pending"), initialized=False),
            "pending    1_a\n1 migration: 1 pending; flux has not touched this database",
            id="never touched",
        ),
        pytest.param(
            _status(
                StatusRow("1_a", "applied", _THEN, "m/1_a.sql"),
                StatusRow("2_longer", "applied", _AWARE, "m/2_longer.sql"),
                StatusRow("3_c", "pending", None, "m/3_c.sql"),
            ),
            "applied    1_a       2024-04-22 12:30:15\n"
            "applied    2_longer  2024-04-22 12:30:15+02:00\n"
            "pending    3_c\n"
            "3 migrations: 2 applied, 1 pending",
            id="aligned",
        ),
        pytest.param(
            _status(
                StatusRow("1_a", "divergent", _THEN, "m/1_a.sql"),
                StatusRow("2_b", "late", None, "m/2_b.sql"),
                StatusRow("3_c", "applied", _THEN, "m/3_c.sql"),
                StatusRow("4_d", "missing", _THEN),
                problems=(_LATE, _MISSING),
            ),
            "divergent  1_a  2024-04-22 12:30:15\n"
            "late       2_b\n"
            "applied    3_c  2024-04-22 12:30:15\n"
            "missing    4_d  2024-04-22 12:30:15\n"
            "\n"
            "- m/2_b.sql:3:8: 2_b is late\n"
            "      3 | SELECT y\n"
            "        |        ^\n"
            "  hint: rename it\n"
            "- 4_d is missing\n"
            "\n"
            "4 migrations: 1 applied, 1 late, 1 divergent, 1 missing",
            id="problems",
        ),
        pytest.param(
            _status(StatusRow("1_a", "applied", _THEN), unfinished=True),
            "applied    1_a  2024-04-22 12:30:15\n"
            "the last batch stopped before its post-apply scripts ran; `flux apply` finishes it\n"
            "1 migration: 1 applied",
            id="unfinished",
        ),
    ],
)
def test_status_text(status: Status, text: str) -> None:
    assert render.status_text(status) == text


def test_status_in_colour() -> None:
    """Colours stand around words, and the columns stay aligned."""
    rows = [
        StatusRow("1_a", "applied", _THEN),
        StatusRow("2_b", "pending"),
        StatusRow("3_c", "late"),
        StatusRow("4_d", "divergent", _THEN),
        StatusRow("5_e", "missing", _THEN),
    ]
    assert render.status_text(_status(*rows, problems=(_MISSING,)), SEEN) == (
        "<good>applied  </>  1_a  <faint>2024-04-22 12:30:15</>\n"
        "<attention>pending  </>  2_b  <faint></>\n"
        "<bad>late     </>  3_c  <faint></>\n"
        "<bad>divergent</>  4_d  <faint>2024-04-22 12:30:15</>\n"
        "<bad>missing  </>  5_e  <faint>2024-04-22 12:30:15</>\n"
        "\n"
        "<bad>-</> 4_d is missing\n"
        "\n"
        "5 migrations: 1 applied, 1 pending, 1 late, 1 divergent, 1 missing"
    )


@pytest.mark.parametrize(
    ("plan", "with_sql", "text"),
    [
        pytest.param(Plan(), False, "nothing to do", id="nothing"),
        pytest.param(Plan(), True, "nothing to do", id="nothing, with SQL"),
        pytest.param(
            Plan(_STEPS),
            False,
            "apply  1_add-users\napply  2_fill\nrun    post-apply/views",
            id="steps",
        ),
        pytest.param(
            Plan(_STEPS),
            True,
            "apply  1_add-users\n"
            "\n"
            "    CREATE TABLE u (a int);\n"
            "\n"
            "apply  2_fill\n"
            "\n"
            "    -- a Python function in m/2_fill.py, which is given the connection\n"
            "\n"
            "run    post-apply/views\n"
            "\n"
            "    CREATE VIEW v AS\n"
            "\n"
            "      SELECT 1;",
            id="steps with SQL",
        ),
        pytest.param(
            Plan((Step("undo", _MIGRATION),)),
            True,
            "undo   1_add-users\n\n    DROP TABLE u;",
            id="the SQL of an undo",
        ),
        pytest.param(
            Plan((Step("run", _VIEWS),), finishes=True),
            False,
            "a batch stopped before its post-apply scripts ran; this finishes it:\n"
            "run    post-apply/views",
            id="a batch that is finished",
        ),
    ],
)
def test_plan_text(plan: Plan, with_sql: bool, text: str) -> None:
    sql_of = [render.step_sql(step) for step in plan.steps] if with_sql else []
    assert render.plan_text(plan, sql_of=sql_of) == text


def test_plan_in_colour() -> None:
    plan = Plan((*_STEPS[::2], Step("undo", _MIGRATION)))
    assert render.plan_text(plan, SEEN) == (
        "<good>apply</>  1_add-users\n"
        "<faint>run  </>  post-apply/views\n"
        "<attention>undo </>  1_add-users"
    )


@pytest.mark.parametrize(
    ("step", "seconds", "text"),
    [
        pytest.param(_STEPS[0], 0.0004, "applied      0 ms  1_add-users", id="quick"),
        pytest.param(_STEPS[0], 0.0123, "applied     12 ms  1_add-users", id="milliseconds"),
        pytest.param(_STEPS[2], 9.9, "ran       9900 ms  post-apply/views", id="seconds"),
        pytest.param(
            Step("undo", _MIGRATION), 75.04, "undone     75.0 s  1_add-users", id="a minute"
        ),
    ],
)
def test_done_text(step: Step, seconds: float, text: str) -> None:
    assert render.done_text(step, seconds) == text


def test_done_in_colour() -> None:
    assert render.done_text(_STEPS[0], 0.01, SEEN) == (
        "<good>applied</>  <faint>   10 ms</>  1_add-users"
    )


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        pytest.param([], "nothing to do", id="nothing"),
        pytest.param(["apply"], "1 migration applied", id="one"),
        pytest.param(["run", "apply", "apply", "run"], "2 migrations applied", id="two"),
        pytest.param(["undo"], "1 migration rolled back", id="rolled back"),
        pytest.param(["run"], "1 repeatable run", id="a repeatable"),
        pytest.param(["run", "run"], "2 repeatables run", id="repeatables"),
    ],
)
def test_result_text(steps: list[str], text: str) -> None:
    result = BatchResult(tuple(StepResult(action, "x", 0.1) for action in steps))  # type: ignore[arg-type] # a table
    assert render.result_text(result) == text


@pytest.mark.parametrize(
    ("palette", "text"),
    [
        pytest.param(render.PLAIN, "error: it broke\nhint: mend it", id="plain"),
        pytest.param(SEEN, "<bad>error:</> it broke\nhint: mend it", id="in colour"),
    ],
)
def test_error_text(palette: Palette, text: str) -> None:
    assert render.error_text(FluxMigrationException("it broke", hint="mend it"), palette) == text


def test_colours_of_terminals_are_undone() -> None:
    palette = render.COLOURED
    assert {palette.paint(colour, "x") for colour in palette[:-1]} == {
        "\033[32mx\033[0m",
        "\033[33mx\033[0m",
        "\033[31mx\033[0m",
        "\033[2mx\033[0m",
    }


# Data ---------------------------------------------------------------------------------------

_LATE_DATA = {
    "kind": "late",
    "ids": ["2_b"],
    "message": "2_b is late",
    "hint": "rename it",
    "location": {"path": "m/2_b.sql", "line": 3, "column": 8, "within": None},
}
_MISSING_DATA = {
    "kind": "missing",
    "ids": ["4_d"],
    "message": "4_d is missing",
    "hint": None,
    "location": None,
}


def test_the_format_is_counted() -> None:
    """A change of a shape below that breaks a reader counts it up, and docs/json.md says so."""
    assert render.FORMAT == 1


def test_status_data() -> None:
    status = _status(
        StatusRow("1_a", "applied", _AWARE, "m/1_a.sql"),
        StatusRow("2_b", "late", None, "m/2_b.sql"),
        StatusRow("4_d", "missing", _THEN),
        problems=(_LATE, _MISSING),
        unfinished=True,
    )
    assert _through_json(render.status_data(status)) == {
        "initialized": True,
        "unfinished_batch": True,
        "changed_repeatables": [],
        "migrations": [
            {
                "id": "1_a",
                "state": "applied",
                "applied_at": "2024-04-22T12:30:15.999999+02:00",
                "path": "m/1_a.sql",
                "half": None,
            },
            {
                "id": "2_b",
                "state": "late",
                "applied_at": None,
                "path": "m/2_b.sql",
                "half": None,
            },
            {
                "id": "4_d",
                "state": "missing",
                "applied_at": "2024-04-22T12:30:15.999999",
                "path": None,
                "half": None,
            },
        ],
        "problems": [_LATE_DATA, _MISSING_DATA],
    }


def test_status_data_of_nothing() -> None:
    assert _through_json(render.status_data(_status(initialized=False))) == {
        "initialized": False,
        "unfinished_batch": False,
        "changed_repeatables": [],
        "migrations": [],
        "problems": [],
    }


def test_plan_data() -> None:
    plan = Plan(_STEPS[::2], finishes=True)
    steps = [
        {"action": "apply", "name": "1_add-users", "path": "1_add-users.sql"},
        {"action": "run", "name": "post-apply/views", "path": "views.sql"},
    ]
    assert _through_json(render.plan_data(plan)) == {"finishes_batch": True, "steps": steps}
    with_sql = render.plan_data(plan, sql_of=["A", "B"])
    assert _through_json(with_sql)["steps"] == [{**steps[0], "sql": "A"}, {**steps[1], "sql": "B"}]
    assert _through_json(render.plan_data(Plan())) == {"finishes_batch": False, "steps": []}


def test_result_data() -> None:
    steps = [StepResult("apply", "1_a", 0.12345678), StepResult("run", "post-apply/views", 1.0)]
    assert _through_json(render.result_data(steps)) == {
        "steps": [
            {"action": "apply", "name": "1_a", "seconds": 0.123457},
            {"action": "run", "name": "post-apply/views", "seconds": 1.0},
        ]
    }


@pytest.mark.parametrize(
    ("error", "data"),
    [
        pytest.param(
            FluxMigrationException("it broke"),
            {
                "type": "FluxMigrationException",
                "message": "it broke",
                "hint": None,
                "location": None,
                "problems": [],
            },
            id="plain",
        ),
        pytest.param(
            MigrationLoadingError("2 problems", problems=(_LATE, _MISSING), hint="see to both"),
            {
                "type": "MigrationLoadingError",
                "message": "2 problems",
                "hint": "see to both",
                "location": None,
                "problems": [_LATE_DATA, _MISSING_DATA],
            },
            id="problems",
        ),
        pytest.param(
            MigrationApplyError(
                "applying 2_b failed: no",
                id="2_b",
                state="rolled back",
                done=("1_a",),
                location=Location("2_b.py", 3, within="apply()"),
            ),
            {
                "type": "MigrationApplyError",
                "message": "applying 2_b failed: no",
                "hint": None,
                "location": {"path": "2_b.py", "line": 3, "column": None, "within": "apply()"},
                "problems": [],
                "name": "2_b",
                "state": "rolled back",
                "done": ["1_a"],
            },
            id="a failed migration",
        ),
    ],
)
def test_error_data(error: FluxMigrationException, data: object) -> None:
    assert _through_json(render.error_data(error)) == data


def _through_json(data: dict[str, object]) -> dict[str, list[dict[str, object]]]:
    """The data as a program reads it; it holds nothing that JSON cannot."""
    read: dict[str, list[dict[str, object]]] = json.loads(json.dumps(data, allow_nan=False))
    return read
