"""What would run, and what stands in the way: tables of (files, history, target) → plan.

Ids are single words. In a history, `a!` was applied with another hash than the file on disk has,
and `a~` by flux-migrations 0.0.3. On disk, `a-` has no undo. Repeatables named `c…` are on-change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest

from flux.directory import MigrationDirectory
from flux.exceptions import (
    FluxMigrationException,
    HalfDoneError,
    IrreversibleMigrationError,
    MigrationDirectoryCorruptedError,
    MigrationLoadingError,
    Problem,
    UnknownMigrationError,
)
from flux.journal import Direction, Entry
from flux.late import LateRun
from flux.migration import (
    AppliedMigration,
    Late,
    Migration,
    Order,
    Placement,
    Repeatable,
    Script,
    misordered,
    sort_key,
)
from flux.plan import (
    DatabaseState,
    Plan,
    Step,
    find_problems,
    newer_than_directory,
    plan_apply,
    plan_rollback,
    survey,
)

_THEN = datetime(2024, 4, 22, 12, 30, tzinfo=timezone.utc)


def _migration(word: str) -> Migration:
    id = word.removesuffix("-")
    return Migration.from_text(id, f"SELECT '{id}'", None if word.endswith("-") else "SELECT 0")


def _repeatable(placement: Placement, id: str, text: str = "") -> Repeatable:
    directive = "-- flux: on-change\n" if id.startswith("c") else ""
    return Repeatable(
        id, placement, Script.from_text(f"{directive}SELECT '{text}'", f"{placement}/{id}.sql")
    )


def _directory(
    files: str, *, pre: str = "", post: str = "", order: Order = "text"
) -> MigrationDirectory:
    migrations = [_migration(word) for word in files.split()]
    migrations.sort(key=lambda migration: sort_key(order)(migration.id))
    ids = [migration.id for migration in migrations]
    return MigrationDirectory(
        path="migrations",
        migrations=tuple(migrations),
        pre_apply=tuple(_repeatable("pre-apply", id) for id in pre.split()),
        post_apply=tuple(_repeatable("post-apply", id) for id in post.split()),
        id_problems=tuple(
            Problem("misordered", pair, f"{pair[0]} before {pair[1]}")
            for pair in (misordered(ids) if order == "text" else ())
        ),
        order=order,
    )


def _row(word: str) -> AppliedMigration:
    id = word.rstrip("!~")
    script = _migration(id).script
    hash = "0" * 64 if "!" in word else script.hash
    if "~" in word:
        hash = "0" * 32 if "!" in word else script.legacy_hash or ""
    return AppliedMigration(id, hash, _THEN)


def _state(
    history: str | None, *, unfinished: bool = False, last_runs: Mapping[str, str] | None = None
) -> DatabaseState:
    if history is None:
        return DatabaseState()
    rows = tuple(_row(word) for word in history.split())
    return DatabaseState(rows, unfinished, last_runs or {})


def _steps(plan: Plan) -> str:
    return " ".join(f"{step.action}:{step.name}" for step in plan.steps)


def _error(
    call: Callable[[], object], type_: type[FluxMigrationException]
) -> FluxMigrationException:
    with pytest.raises(type_) as caught:
        call()
    assert type(caught.value) is type_
    return caught.value


# Status -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "history", "rows"),
    [
        pytest.param("", None, "", id="nothing at all"),
        pytest.param("a b", None, "a:pending b:pending", id="never touched"),
        pytest.param("a b", "", "a:pending b:pending", id="an empty history"),
        pytest.param("a b c", "a b", "a:applied b:applied c:pending", id="some"),
        pytest.param("a b c", "a c", "a:applied b:late c:applied", id="late"),
        pytest.param("a b", "a! b", "a:divergent b:applied", id="divergent"),
        pytest.param("b", "a b c", "a:missing b:applied c:missing", id="missing"),
        pytest.param("a b", "a c", "a:applied b:late c:missing", id="late before a missing one"),
        pytest.param("a b", "a~ b~!", "a:applied b:divergent", id="of 0.0.3"),
        pytest.param("a b c d e f", "b! c e g", "a:late b:divergent c:applied d:late e:applied "
                     "f:late g:missing", id="all at once"),
    ],
)  # fmt: skip
def test_survey(files: str, history: str | None, rows: str) -> None:
    found = survey(_directory(files), _state(history))
    assert " ".join(f"{row.id}:{row.state}" for row in found) == rows
    for row in found:
        assert (row.applied_at is None) == (row.state in ("pending", "late"))
        assert (row.path is None) == (row.state == "missing")


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        pytest.param("text", "10_x:late 8_x:applied 9_x:applied", id="text"),
        pytest.param("natural", "8_x:applied 9_x:applied 10_x:pending", id="natural"),
    ],
)
def test_survey_goes_by_the_order(order: Order, rows: str) -> None:
    found = survey(_directory("8_x 9_x 10_x", order=order), _state("8_x 9_x"))
    assert " ".join(f"{row.id}:{row.state}" for row in found) == rows


# Problems -----------------------------------------------------------------------------------

_DIVERGENT = (
    "{0}.sql: {0} is divergent: it has changed since it was applied\n"
    "hint: restore the file as it was applied, and put the change into a new migration"
    "; or roll back to before it, and change it then"
)
_LATE = (
    "{0}.sql: {0} is late: it is pending, and {1}, which is newer, is applied\n"
    "hint: if it is applied nowhere yet, rename it so that it sorts last; or roll back what is "
    "newer, and apply again; or let `flux test --late` prove that their order does not matter, "
    "and give `--allow-late`"
)
_MISSING = "{0} is missing: the history has it, and the directory does not\n"
_RESTORE = (
    _MISSING
    + "hint: restore the file; if it was renamed, give it back the name it was applied with"
)
_NEWER = (
    _MISSING
    + "hint: the database is newer than this directory: use the version that has the file, "
    'or restore it (missing = "allow-newer" in the configuration lets an old version start)'
)


@pytest.mark.parametrize(
    ("files", "history", "problems"),
    [
        pytest.param("a b", None, [], id="never touched"),
        pytest.param("a b", "a", [], id="in agreement"),
        pytest.param("a b", "a~", [], id="in agreement with 0.0.3"),
        pytest.param("a b", "a!", [_DIVERGENT.format("a")], id="divergent"),
        pytest.param("a b", "a~!", [_DIVERGENT.format("a")], id="divergent by the rule of 0.0.3"),
        pytest.param("a b c", "b c", [_LATE.format("a", "c")], id="late"),
        pytest.param("b", "a b", [_RESTORE.format("a")], id="missing"),
        pytest.param("a", "a b", [_NEWER.format("b")], id="a database newer than the build"),
        pytest.param("", "a", [_NEWER.format("a")], id="no files"),
        pytest.param(
            "a b d",
            "b! c d e",
            [
                _LATE.format("a", "e"),
                _DIVERGENT.format("b"),
                _RESTORE.format("c"),
                _NEWER.format("e"),
            ],
            id="all at once",
        ),
    ],
)
def test_problems(files: str, history: str | None, problems: list[str]) -> None:
    found = find_problems(_directory(files), _state(history))
    assert [str(problem) for problem in found] == problems


@pytest.mark.parametrize(
    ("files", "history", "newer", "kinds"),
    [
        pytest.param("a", "a b c", ("b", "c"), [], id="all newer"),
        pytest.param("a c", "a b d", (), ["missing", "late", "missing"], id="one older"),
        pytest.param("b", "a b c", (), ["missing", "missing"], id="one of two older"),
        pytest.param("a", "a! b", ("b",), ["divergent"], id="newer, and divergent"),
        pytest.param("", "a", (), ["missing"], id="no files"),
        pytest.param("a b", "a", (), [], id="none missing"),
    ],
)
def test_a_newer_database_may_be_allowed(
    files: str, history: str, newer: tuple[str, ...], kinds: list[str]
) -> None:
    directory, state = _directory(files), _state(history)
    assert newer_than_directory(directory, state) == newer
    found = find_problems(directory, state, missing="allow-newer")
    assert [problem.kind for problem in found] == kinds


@pytest.mark.parametrize("late", ["allow", "prove"])
def test_late_ones_may_be_allowed_and_nothing_else_is(late: Late) -> None:
    found = find_problems(_directory("a b c d"), _state("b! d e"), late=late)
    assert [(problem.kind, problem.ids) for problem in found] == [
        ("divergent", ("b",)),
        ("missing", ("e",)),
    ]


def _half(direction: Direction, id: str) -> Entry:
    return Entry(direction, id, 1, "finished", "0" * 64, "SELECT 1", 0, 1)


def test_one_that_is_half_applied_is_late_no_more() -> None:
    """It was decided when it was begun; those that are not begun are late."""
    state = _state("c")._replace(journal=(_half("apply", "b"),))
    found = find_problems(_directory("a b c"), state)
    assert [(problem.kind, problem.ids) for problem in found] == [("late", ("a",))]


@pytest.mark.parametrize(
    ("order", "hint"),
    [pytest.param("text", _RESTORE, id="text"), pytest.param("natural", _NEWER, id="natural")],
)
def test_which_is_newer_goes_by_the_order(order: Order, hint: str) -> None:
    found = find_problems(_directory("9_x", order=order), _state("10_x 9_x"))
    assert [str(problem) for problem in found] == [hint.format("10_x")]


@pytest.mark.parametrize(
    ("files", "history", "kinds"),
    [
        pytest.param("10_a 9_b", None, ["misordered"], id="new"),
        pytest.param("10_a 9_b", "10_a 9_b", ["misordered"], id="applied by today's flux"),
        pytest.param("10_a 9_b", "10_a~ 9_b~", [], id="applied by 0.0.3"),
        pytest.param("10_a 9_b", "10_a~", ["misordered"], id="one of them new"),
        pytest.param("10_a 9_b z_c", "10_a~ 9_b~", [], id="a new one in order"),
        pytest.param("10_a 11_c 9_b", "10_a~ 9_b~", ["misordered", "late"], id="a new one between"),
        pytest.param("_x a", "_x~ a~", [], id="an id that today's rules pass over"),
        pytest.param("_x a b", "_x~ a~", [], id="a new one before an id passed over"),
    ],
)
def test_what_0_0_3_recorded_stays_valid(files: str, history: str | None, kinds: list[str]) -> None:
    found = find_problems(_directory(files), _state(history))
    assert [problem.kind for problem in found] == kinds


# Apply --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "history", "count", "to", "steps"),
    [
        pytest.param("", None, None, None, "", id="nothing"),
        pytest.param("a b c", None, None, None, "apply:a apply:b apply:c", id="all, never touched"),
        pytest.param("a b c", "", None, None, "apply:a apply:b apply:c", id="all, empty history"),
        pytest.param("a b c", "a", None, None, "apply:b apply:c", id="the rest"),
        pytest.param("a b c", "a b c", None, None, "", id="nothing left"),
        pytest.param("a b c", "a", 1, None, "apply:b", id="one"),
        pytest.param("a b c", "a", 0, None, "", id="none"),
        pytest.param("a b c", "a", 9, None, "apply:b apply:c", id="more than there are"),
        pytest.param("a b c", "a", None, "b", "apply:b", id="to one"),
        pytest.param("a b c", "a", None, "c", "apply:b apply:c", id="to the last"),
        pytest.param("a b c", "a b", None, "a", "", id="to one that is applied"),
        pytest.param("a b c", "", 1, "b", "apply:a", id="count and to: the nearer"),
        pytest.param("a b c", "", 9, "b", "apply:a apply:b", id="to and count: the nearer"),
        pytest.param("_x a b", "_x~ a~", None, None, "apply:b" , id="after 0.0.3"),
    ],
)  # fmt: skip
def test_plan_apply(
    files: str, history: str | None, count: int | None, to: str | None, steps: str
) -> None:
    plan = plan_apply(_directory(files), _state(history), count=count, to=to)
    assert _steps(plan) == steps
    assert not plan.finishes


@pytest.mark.parametrize(
    ("files", "history", "late", "options", "steps"),
    [
        pytest.param("a b c d", "b", "", {}, "apply:a>b1 apply:c apply:d", id="before the pending"),
        pytest.param("a b c d", "d", "", {}, "apply:a>d1 apply:b>d2 apply:c>d3", id="all late"),
        pytest.param("a b c d", "d", "", {"count": 2}, "apply:a>d1 apply:b>d2", id="two of them"),
        pytest.param("a b c d", "d", "", {"to": "b"}, "apply:a>d1 apply:b>d2", id="to one"),
        pytest.param("a b c d", "d", "", {"to": "d"}, "apply:a>d1 apply:b>d2 apply:c>d3",
                     id="to one that is applied"),
        pytest.param("a b c d", "c d", "c>d4", {}, "apply:a>d5 apply:b>d6", id="later than others"),
        pytest.param("a b c d", "d", "c>d4", {}, "apply:a>d1 apply:b>d2 apply:c>d3",
                     id="a note of one that is not applied means nothing"),
        pytest.param("a b c", "b", "b>c1", {}, "apply:a>c2 apply:c",
                     id="after one whose row was taken away by hand"),
        pytest.param("a b c", None, "", {}, "apply:a apply:b apply:c", id="never touched"),
        pytest.param("_x a b c", "_x~ b~", "", {}, "apply:a>b1 apply:c", id="of 0.0.3"),
    ],
)  # fmt: skip
def test_late_ones_are_applied_in_order_with_the_others(
    files: str, history: str | None, late: str, options: dict[str, Any], steps: str
) -> None:
    state = _state(history)._replace(late=_late(late))
    plan = plan_apply(_directory(files), state, late="allow", **options)
    assert " ".join(_with_late(step) for step in plan.steps) == steps


def _late(words: str) -> tuple[LateRun, ...]:
    """`b>d2`: b was applied after d, as the second of the late ones."""
    pairs = (word.split(">") for word in words.split())
    return tuple(LateRun(id, after[:-1], int(after[-1])) for id, after in pairs)


def _with_late(step: Step) -> str:
    late = step.late
    return f"{step.action}:{step.name}" + (f">{late.after}{late.number}" if late else "")


def test_one_that_is_half_applied_comes_before_late_ones() -> None:
    directory = _directory("a b c d")
    state = _state("d")._replace(journal=(_half("apply", "c"),))
    plan = plan_apply(directory, state, late="allow")
    assert _steps(plan) == "apply:c apply:a apply:b"
    assert [step.half is not None for step in plan.steps] == [True, False, False]
    assert _steps(plan_apply(directory, state, late="allow", count=1, to="c")) == "apply:c"
    error = _error(lambda: plan_apply(directory, state, late="allow", to="b"), HalfDoneError)
    assert str(error) == (
        "c is half applied: statement 2 is the next; before anything else is applied, that has to "
        "be done\nhint: `flux resume` goes on with it"
    )


def test_no_late_one_is_applied_while_one_is_half_undone() -> None:
    state = _state("b c")._replace(journal=(_half("undo", "c"),))
    error = _error(lambda: plan_apply(_directory("a b c"), state, late="allow"), HalfDoneError)
    assert error.hint == "`flux rollback` goes on with it"


def test_plan_apply_goes_by_the_order() -> None:
    directory = _directory("8_x 9_x 10_x 11_x", order="natural")
    assert _steps(plan_apply(directory, _state("8_x"), to="10_x")) == "apply:9_x apply:10_x"
    assert _steps(plan_apply(directory, _state("8_x"), count=1)) == "apply:9_x"


@pytest.mark.parametrize(
    ("to", "message"),
    [
        pytest.param(
            "20240422_01_x",
            "no migration '20240422_01_x' is on disk\nhint: did you mean '20240422_001_x'?",
            id="mistyped",
        ),
        pytest.param(
            "2_y",
            "no migration '2_y' is on disk\nhint: did you mean '20240422_002_y'?",
            id="a part of one",
        ),
        pytest.param(
            "0422_00",
            "no migration '0422_00' is on disk\n"
            "hint: did you mean '20240422_001_x' or '20240422_002_y'?",
            id="a part of two",
        ),
        pytest.param(
            "2024",
            "no migration '2024' is on disk\n"
            "hint: did you mean '20240422_001_x' or '20240422_002_y' or '20240423_001_z'?",
            id="a part of more than three",
        ),
        pytest.param(
            "zzz", "no migration 'zzz' is on disk\nhint: `flux status` lists them", id="unknown"
        ),
        pytest.param("", "no migration '' is on disk\nhint: `flux status` lists them", id="empty"),
    ],
)
def test_a_target_that_is_not_there_is_an_error(to: str, message: str) -> None:
    directory = _directory("20240422_001_x 20240422_002_y 20240423_001_z 20240424_001_w")
    error = _error(lambda: plan_apply(directory, _state(""), to=to), UnknownMigrationError)
    assert str(error) == message


def test_nothing_is_planned_over_problems() -> None:
    """Also where what would be applied is not what is wrong."""
    error = _error(
        lambda: plan_apply(_directory("a b c d"), _state("a! c e"), count=0),
        MigrationDirectoryCorruptedError,
    )
    assert error.message == "history and migration directory disagree"
    assert [(problem.kind, problem.ids) for problem in error.problems] == [
        ("divergent", ("a",)),
        ("late", ("b",)),
        ("late", ("d",)),
        ("missing", ("e",)),
    ]


def test_ids_against_the_rules_are_an_error_of_the_directory() -> None:
    error = _error(lambda: plan_apply(_directory("10_a 9_b"), _state(None)), MigrationLoadingError)
    assert str(error) == ("the migration directory breaks the rules for ids\n- 10_a before 9_b")


# Repeatables --------------------------------------------------------------------------------

_CHANGED = {"pre-apply/c1": "0" * 64, "post-apply/c2": "0" * 64}
_SAME = {
    "pre-apply/c1": _repeatable("pre-apply", "c1").script.hash,
    "post-apply/c2": _repeatable("post-apply", "c2").script.hash,
}


@pytest.mark.parametrize(
    ("history", "unfinished", "last_runs", "steps", "finishes"),
    [
        pytest.param(
            "",
            False,
            _SAME,
            "run:pre-apply/p apply:a run:post-apply/q",
            False,
            id="around a batch, what did not change stays out",
        ),
        pytest.param(
            "",
            False,
            {},
            "run:pre-apply/c1 run:pre-apply/p apply:a run:post-apply/c2 run:post-apply/q",
            False,
            id="around the first batch, all",
        ),
        pytest.param("a", False, _SAME, "", False, id="nothing pending, nothing runs"),
        pytest.param(
            "a",
            False,
            _CHANGED,
            "run:pre-apply/c1 run:pre-apply/p run:post-apply/c2 run:post-apply/q",
            False,
            id="a change makes a batch of its own",
        ),
        pytest.param(
            "a",
            False,
            {**_SAME, "post-apply/c2": "0" * 64},
            "run:pre-apply/p run:post-apply/c2 run:post-apply/q",
            False,
            id="a change of one of them",
        ),
        pytest.param(
            "a", True, _SAME, "run:post-apply/q", True, id="a batch that was cut off is finished"
        ),
        pytest.param(
            "",
            True,
            _SAME,
            "run:pre-apply/p apply:a run:post-apply/q",
            False,
            id="a batch that was cut off, and more is pending",
        ),
        pytest.param(
            "a",
            True,
            {**_SAME, "post-apply/c2": "0" * 64},
            "run:pre-apply/p run:post-apply/c2 run:post-apply/q",
            False,
            id="a batch that was cut off, and a change",
        ),
    ],
)
def test_repeatables(
    history: str, unfinished: bool, last_runs: Mapping[str, str], steps: str, finishes: bool
) -> None:
    directory = _directory("a", pre="c1 p", post="c2 q")
    plan = plan_apply(directory, _state(history, unfinished=unfinished, last_runs=last_runs))
    assert (_steps(plan), plan.finishes) == (steps, finishes)


def test_a_batch_that_was_cut_off_is_finished_also_where_nothing_is_left_to_run() -> None:
    """Its post-apply scripts may be gone; the plan is not empty, so that it is forgotten."""
    plan = plan_apply(_directory("a"), _state("a", unfinished=True))
    assert (plan.steps, plan.finishes, plan.is_empty) == ((), True, False)


def test_repeatables_that_are_not_on_change_make_no_batch() -> None:
    assert plan_apply(_directory("a", pre="p", post="q"), _state("a")) == Plan()


# Rollback -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "target", "steps"),
    [
        pytest.param("a b c", {}, "undo:c", id="one unless told more"),
        pytest.param("a b c", {"count": 2}, "undo:c undo:b", id="two"),
        pytest.param("a b c", {"count": 0}, "", id="none"),
        pytest.param("a b c", {"count": None}, "undo:c undo:b undo:a", id="all"),
        pytest.param("a b c", {"count": 9}, "undo:c undo:b undo:a", id="more than there are"),
        pytest.param("a b c", {"to": "a"}, "undo:c undo:b", id="to one, which stays"),
        pytest.param("a b c", {"to": "c"}, "", id="to the newest"),
        pytest.param("a b c", {"through": "b"}, "undo:c undo:b", id="through one"),
        pytest.param("a b c", {"through": "c"}, "undo:c", id="through the newest"),
        pytest.param("", {}, "", id="nothing applied"),
        pytest.param(None, {"count": None}, "", id="never touched"),
        pytest.param("c a b", {"count": None}, "undo:c undo:b undo:a", id="in order of ids"),
        pytest.param("a! b c", {}, "undo:c", id="an older one is divergent"),
        pytest.param("a x0 x9", {}, "undo:x9", id="an older one is missing"),
        pytest.param("a c", {}, "undo:c", id="one is late"),
        pytest.param("a~ b~ c", {"count": 2}, "undo:c undo:b", id="of 0.0.3"),
    ],
)
def test_plan_rollback(history: str | None, target: dict[str, object], steps: str) -> None:
    plan = plan_rollback(_directory("a b c x9"), _state(history), **target)  # type: ignore[arg-type] # a table
    assert _steps(plan) == steps


def test_plan_rollback_goes_by_the_order() -> None:
    directory = _directory("8_x 9_x 10_x", order="natural")
    state = _state("10_x 8_x 9_x")
    assert _steps(plan_rollback(directory, state, count=2)) == "undo:10_x undo:9_x"
    assert _steps(plan_rollback(directory, state, to="9_x")) == "undo:10_x"


@pytest.mark.parametrize(
    ("late", "target", "steps"),
    [
        pytest.param("b>d1", {"count": None}, "undo:b undo:d undo:c undo:a", id="one"),
        pytest.param("b>d1", {}, "undo:b", id="the last is the late one"),
        pytest.param("b>c1", {"count": None}, "undo:d undo:b undo:c undo:a", id="a newer since"),
        pytest.param("b>c1", {"count": 2}, "undo:d undo:b", id="two of them"),
        pytest.param("b>d2 c>d1", {"count": None}, "undo:b undo:c undo:d undo:a", id="two batches"),
        pytest.param("a>d1 b>d2", {"count": None}, "undo:b undo:a undo:d undo:c", id="one batch"),
        pytest.param("b>d1", {"to": "c"}, "undo:b undo:d", id="to one"),
        pytest.param("b>d1", {"to": "b"}, "", id="to the late one"),
        pytest.param("b>d1", {"to": "d"}, "undo:b", id="to the newest"),
        pytest.param("b>d1", {"through": "d"}, "undo:b undo:d", id="through the newest"),
        pytest.param("b>d1", {"through": "b"}, "undo:b", id="through the late one"),
        pytest.param("b>x1", {"count": 1}, "undo:b", id="after one that is gone"),
        pytest.param("x>d1", {"count": 1}, "undo:d", id="a note of one that is not applied"),
    ],
)
def test_what_was_applied_last_is_undone_first(
    late: str, target: dict[str, Any], steps: str
) -> None:
    state = _state("a b c d")._replace(late=_late(late))
    assert _steps(plan_rollback(_directory("a b c d"), state, **target)) == steps


def test_the_order_of_application_heeds_numbers_where_ids_do() -> None:
    state = _state("8_x 9_x 10_x")._replace(late=_late("8_x>10_x1"))
    plan = plan_rollback(_directory("8_x 9_x 10_x", order="natural"), state, count=None)
    assert _steps(plan) == "undo:8_x undo:10_x undo:9_x"


def test_repeatables_run_around_a_rollback() -> None:
    directory = _directory("a", pre="p", post="q")
    assert _steps(plan_rollback(directory, _state("a"))) == (
        "run:pre-apply/p undo:a run:post-apply/q"
    )
    assert plan_rollback(directory, _state("")) == Plan()


@pytest.mark.parametrize("last_runs", [{}, _SAME, _CHANGED], ids=["never ran", "same", "changed"])
def test_on_change_does_not_run_around_a_rollback(last_runs: Mapping[str, str]) -> None:
    plan = plan_rollback(_directory("a", pre="c1 p", post="c2 q"), _state("a", last_runs=last_runs))
    assert _steps(plan) == "run:pre-apply/p undo:a run:post-apply/q"


@pytest.mark.parametrize(
    ("history", "target", "problems"),
    [
        pytest.param("a b!", {}, [_DIVERGENT.format("b")], id="divergent"),
        pytest.param("a! b!", {}, [_DIVERGENT.format("b")], id="of two, the one it touches"),
        pytest.param("a b z", {}, [_NEWER.format("z")], id="missing"),
        pytest.param(
            "a! aa b z",
            {"count": None},
            [_DIVERGENT.format("a"), _RESTORE.format("aa"), _NEWER.format("z")],
            id="all that it touches",
        ),
    ],
)
def test_rollback_touches_no_problem(
    history: str, target: dict[str, object], problems: list[str]
) -> None:
    """An undo that is not of what was applied could destroy anything."""
    error = _error(
        lambda: plan_rollback(_directory("a b"), _state(history), **target),  # type: ignore[arg-type] # a table
        MigrationDirectoryCorruptedError,
    )
    assert [str(problem) for problem in error.problems] == problems


@pytest.mark.parametrize(
    ("count", "message"),
    [
        pytest.param(
            1,
            "c cannot be rolled back: there is no undo\n- c.sql: has no undo\n{hint}",
            id="one",
        ),
        pytest.param(
            None,
            "2 migrations cannot be rolled back: there is no undo\n"
            "- c.sql: has no undo\n- a.sql: has no undo\n{hint}",
            id="several",
        ),
    ],
)
def test_no_undo(count: int | None, message: str) -> None:
    """It is not silently forgotten, and nothing before it is undone."""
    error = _error(
        lambda: plan_rollback(_directory("a- b c-"), _state("a b c"), count=count),
        IrreversibleMigrationError,
    )
    assert str(error) == message.format(
        hint="hint: write one: ID.undo.sql beside ID.sql, or undo() in a Python migration; "
        "a comment alone will do where nothing needs undoing"
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param(
            {"to": "c"},
            "no migration 'c' is applied\nhint: `flux status` lists them",
            id="to a pending one",
        ),
        pytest.param(
            {"through": "zzz"},
            "no migration 'zzz' is applied\nhint: `flux status` lists them",
            id="through an unknown one",
        ),
    ],
)
def test_a_target_that_is_not_applied_is_an_error(target: dict[str, str], message: str) -> None:
    error = _error(
        lambda: plan_rollback(_directory("a b c"), _state("a b"), **target),  # type: ignore[arg-type] # a table
        UnknownMigrationError,
    )
    assert str(error) == message


# Plans --------------------------------------------------------------------------------------


def test_plans_are_the_same_when_they_would_do_the_same() -> None:
    """The question at the terminal was about this; the state may have moved on meanwhile."""
    asked = plan_apply(_directory("a b"), _state(""))
    assert asked.outline() == plan_apply(_directory("a b"), _state(None)).outline()
    for other in (
        plan_apply(_directory("a b"), _state("a")),
        plan_apply(_directory("a b", post="q"), _state("")),
        plan_rollback(_directory("a b"), _state("a b"), count=2),
        Plan((asked.steps[0], asked.steps[1]._replace(subject=Migration.from_text("b", "new")))),
    ):
        assert asked.outline() != other.outline()


def test_the_migrations_of_a_plan() -> None:
    plan = plan_apply(_directory("a b", pre="p", post="q"), _state(""))
    assert [migration.id for migration in plan.migrations] == ["a", "b"]
    assert [step.path for step in plan.steps] == [
        "pre-apply/p.sql",
        "a.sql",
        "b.sql",
        "post-apply/q.sql",
    ]
