"""Units, rows and differences of the journal: text in, records out."""

from __future__ import annotations

import json

import pytest

from flux.backends.journaled import Verdict
from flux.backends.postgres_in_doubt import find_look, is_repeatable
from flux.backends.postgres_journaled import way_of
from flux.journal import (
    Direction,
    Entry,
    read_entries,
    under_way,
    without_ended,
)
from flux.migration import Script
from flux.statements import Statement, split
from flux.units import Unit, Way, entry_of, find_changes, units_of_text


def units(text: str) -> list[Unit]:
    """The units of a text, as PostgreSQL runs it."""
    pieces = [piece for piece in split(text, "postgres") if isinstance(piece, Statement)]
    return units_of_text(pieces, "postgres", way_of)


def shape(unit: Unit) -> tuple[list[int], list[int], bool, int]:
    """The numbers of a unit's statements and settings, whether it is atomic, and its last one."""
    statements = [one.number for one in unit.statements]
    return statements, [one.number for one in unit.session], unit.is_atomic, unit.last


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("-- nothing\n;;", [], id="comments"),
        pytest.param("SELECT 1; VACUUM", [([1], [], True, 1), ([2], [], False, 2)], id="two"),
        pytest.param(
            "SELECT 1; BEGIN; SELECT 2; SELECT 3; COMMIT; SELECT 4",
            [([1], [], True, 1), ([3, 4], [], True, 5), ([6], [], True, 6)],
            id="a block",
        ),
        pytest.param("BEGIN; END", [([], [], True, 2)], id="an empty block"),
        pytest.param(
            "SET a.b = 1; SELECT 1; RESET a.b; SET ROLE r; VACUUM; SELECT 2; SET x = 1",
            [
                ([2], [1], True, 2),
                ([5], [1, 3, 4], False, 5),
                ([6], [1, 3, 4], True, 6),
                ([], [1, 3, 4, 7], True, 7),
            ],
            id="settings, the last of them by themselves",
        ),
        pytest.param(
            "BEGIN; SET x = 1; COMMIT; SELECT 1",
            [([2], [], True, 3), ([4], [2], True, 4)],
            id="a setting within a block holds for what follows it, too",
        ),
    ],
)
def test_units(text: str, shapes: list[tuple[list[int], list[int], bool, int]]) -> None:
    found = units(text)
    assert [shape(unit) for unit in found] == shapes
    assert [unit.number for unit in found] == list(range(1, len(found) + 1))


def test_a_unit_is_known_by_its_text_and_the_settings_before_it() -> None:
    """Not by those further up, which are an earlier one's, nor by comments around it."""
    base = "SET x = 1; SELECT 1; SET y = 1; SELECT 2; SELECT 3"
    first, second, third = (unit.hash for unit in units(base))
    for changed, same in (
        ("SET x = 2; SELECT 1; SET y = 1; SELECT 2; SELECT 3", (False, True, True)),
        ("SET x = 1; SELECT 1; SET y = 2; SELECT 2; SELECT 3", (True, False, True)),
        ("SET x = 1; SELECT 1; SELECT 2; SELECT 3", (True, False, True)),
        ("SET x = 1; SELECT 1; SET y = 1; SELECT  2; SELECT 3", (True, False, True)),
        ("-- a\nSET x = 1;\n/* b */ SELECT 1; SET y = 1;\nSELECT 2;\nSELECT 3;\n", (True,) * 3),
    ):
        hashes = [unit.hash for unit in units(changed)]
        assert tuple(map(str.__eq__, hashes, (first, second, third))) == same, changed


def test_the_rows_of_copy_belong_to_it() -> None:
    one, other = (units(f"COPY t FROM stdin;\n{row}\n\\.\n")[0].hash for row in "ab")
    assert one != other


@pytest.mark.parametrize("id", ["001", "a:b", "it's", "größe 100%_x"])
def test_a_row_is_read_as_it_was_written(id: str) -> None:
    [_, unit] = units("SELECT 1; SET x = 'é'; VACUUM t")
    entry = entry_of("undo", id, unit, "reached")._replace(before="[]", session="1 2.5")
    assert entry.sql == "VACUUM t"
    assert read_entries([("last-run:x", "y"), (entry.name, entry.value)]) == (entry,)


def test_a_row_holds_the_beginning_of_a_long_text() -> None:
    [unit] = units(f"SELECT '{'x' * 100_000}'")
    assert len(entry_of("apply", "1", unit, "reached").text) == 4000


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER ROLE r PASSWORD $$hunter2$$",
        "ALTER ROLE r PASSWORD/* c */'hunter2'",
        "ALTER ROLE r PASSWORD E'x\\'hunter2'",
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=''hunter2'' x' PUBLICATION p",
        "SELECT set_config('app.password', 'hunter2', true)",
        "INSERT INTO users (name, password) VALUES ('a', 'hunter2')",
        "SELECT dblink('postgresql://u:hunter2@h/d')",
    ],
)
def test_a_row_keeps_no_password(sql: str) -> None:
    """Its hash is of the whole text all the same."""
    [unit] = units(sql)
    entry = entry_of("apply", "1", unit, "finished")
    assert "hunter2" not in entry.value
    assert entry.text == "(what mentions a password is not kept);\n"
    assert entry.hash == unit.hash


def _rows(text: str, *states: str) -> tuple[Entry, ...]:
    return tuple(
        entry_of("apply", "1", unit, state)  # type: ignore[arg-type] # a table of states
        for unit, state in zip(units(text), states, strict=False)
    )


@pytest.mark.parametrize(
    ("states", "goes_on_at", "is_open"),
    [
        (["finished"], 2, False),
        (["reached"], 1, True),
        (["finished", "finished"], 3, False),
        (["finished", "failed"], 2, True),
    ],
)
def test_under_way(states: list[str], goes_on_at: int, is_open: bool) -> None:
    half = under_way(_rows("SELECT 1; SELECT 2; SELECT 3", *states))
    assert half is not None
    assert (half.goes_on_at, half.open is not None) == (goes_on_at, is_open)
    assert str(half) == f"1 is half applied: statement {goes_on_at} is the next"


def test_what_a_repeatable_does_is_not_under_way() -> None:
    [row] = _rows("VACUUM", "reached")
    assert under_way([row._replace(direction="run")]) is None
    assert under_way([]) is None


@pytest.mark.parametrize(
    ("direction", "recorded", "is_left"),
    [
        pytest.param("apply", False, True, id="half applied"),
        pytest.param("apply", True, False, id="applied since"),
        pytest.param("undo", True, True, id="half rolled back"),
        pytest.param("undo", False, False, id="rolled back since"),
        pytest.param("run", False, True, id="a repeatable"),
    ],
)
def test_what_has_ended_since_the_journal_was_read(
    direction: Direction, recorded: bool, is_left: bool
) -> None:
    """The history is read after it; the two are not read in one moment."""
    [row] = (row._replace(direction=direction) for row in _rows("VACUUM", "reached"))
    assert without_ended([row], {"1"} if recorded else {"2"}) == ((row,) if is_left else ())


@pytest.mark.parametrize(
    ("now", "messages"),
    [
        pytest.param("SELECT 1; SELECT 2; SELECT 3", [], id="nothing"),
        pytest.param("SELECT 1; SELECT 2", [], id="what is not done yet is gone"),
        pytest.param(
            "SELECT 0; SELECT 2; SELECT 3",
            ["statement 1 has taken effect, and is another one now:\n- SELECT 1;\n+ SELECT 0;"],
            id="one",
        ),
        pytest.param(
            "",
            [
                f"statement {n} has taken effect, and is another one now:\n- SELECT {n};"
                for n in (1, 2)
            ],
            id="all are gone",
        ),
        pytest.param(
            "SELECT 0; SELECT 1; SELECT 2",
            [
                f"statement {n} has taken effect, and is another one now:\n"
                f"- SELECT {n};\n+ SELECT {n - 1};"
                for n in (1, 2)
            ],
            id="one is put before",
        ),
    ],
)
def test_changes_of_what_is_done(now: str, messages: list[str]) -> None:
    half = under_way(_rows("SELECT 1; SELECT 2; SELECT 3", "finished", "finished"))
    assert half is not None
    script = Script.from_text(f"-- flux: no-transaction\n{now}", "1.sql")
    found = find_changes(script, units(now), half)
    assert [problem.message for problem in found] == messages


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("SELECT 1", "together"),
        ("CREATE INDEX a ON t (b)", "together"),
        ("ALTER TYPE e ADD VALUE 'x'", "together"),
        ("REFRESH MATERIALIZED VIEW CONCURRENTLY v", "together"),
        ("DO $$ BEGIN PERFORM 1; END $$", "together"),
        ("SET LOCAL x = 1", "together"),
        ("SET CONSTRAINTS ALL DEFERRED", "together"),
        ("UPDATE t SET a = 1", "together"),
        ("CREATE INDEX CONCURRENTLY a ON t (b)", "alone"),
        ("drop /* x */ index concurrently a", "alone"),
        ("VACUUM", "alone"),
        ("CALL p()", "alone"),
        ("DO $$ BEGIN COMMIT; END $$", "alone"),
        ("CREATE DATABASE d", "alone"),
        ("SET x = 1", "session"),
        ("SET SESSION AUTHORIZATION u", "session"),
        ("set role r", "session"),
        ("RESET ALL", "session"),
        ("SELECT pg_catalog.set_config('search_path', '', false)", "session"),
        ("SELECT set_config('search_path', now()::text, false)", "together"),
        ("SELECT set_config('a.b', 'c', false), f()", "together"),
        ("SELECT set_config('a.b', 'c', true)", "together"),
        ("SELECT set_config( 'a.b' , $$c$$ , false )", "session"),
        ("SELECT set_config(E'a.b', 'it''s'::text, 'f'::bool)", "session"),
        ("SELECT set_config('a.b', 'c' || 'd', false)", "together"),
    ],
)
def test_how_postgres_runs_a_statement(text: str, way: Way) -> None:
    [piece] = split(text, "postgres")
    assert isinstance(piece, Statement)
    assert way_of(piece) == way


@pytest.mark.parametrize(
    ("text", "looks_for"),
    [
        ("CREATE INDEX CONCURRENTLY a ON t (b)", {"table": "t", "name": "a"}),
        ("create unique index concurrently A on only S.T (b)", {"table": "S.T", "name": "a"}),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON t (b)", {"table": "t", "name": "a"}),
        (
            'CREATE INDEX CONCURRENTLY "A ""b" ON "s p" . "T" (b)',
            {"table": '"s p"."T"', "name": 'A "b'},
        ),
        ('CREATE INDEX CONCURRENTLY"a"ON"t"(b)', {"table": '"t"', "name": "a"}),
        ('CREATE INDEX CONCURRENTLY a ON ONLY"t"(b)', {"table": '"t"', "name": "a"}),
        (
            "CREATE INDEX CONCURRENTLY a ON p /* a /* n */ b */ . t(b)",
            {"table": "p.t", "name": "a"},
        ),
        ("CREATE INDEX CONCURRENTLY IF ON t (b)", {"table": "t", "name": "if"}),
        ("CREATE INDEX CONCURRENTLY ON t (b)", None),
        ('CREATE INDEX CONCURRENTLY U&"a" ON t (b)', None),
        ('CREATE INDEX CONCURRENTLY a ON U&"t" (b)', None),
        ('CREATE INDEX CONCURRENTLY "a"ON t (b)', {"table": "t", "name": "a"}),
        ("CREATE INDEX CONCURRENTLY AÄ ON s /* x */ . t (b)", {"table": "s.t", "name": "aÄ"}),
        ("CREATE -- x\n INDEX /* y */ CONCURRENTLY ä1$ ON t (b)", {"table": "t", "name": "ä1$"}),
        (f"CREATE INDEX CONCURRENTLY {'x' * 70} ON t (b)", {"table": "t", "name": "x" * 63}),
        ("DROP INDEX CONCURRENTLY s.a", {"path": "s.a"}),
        ('DROP INDEX CONCURRENTLY IF EXISTS"i"', {"path": '"i"'}),
        ('REINDEX TABLE CONCURRENTLY"t"', {"kind": "TABLE", "path": '"t"'}),
        ("REINDEX (CONCURRENTLY) DATABASE d", {"kind": "DATABASE", "path": ""}),
        ("REINDEX TABLE t", None),
        ("DROP INDEX CONCURRENTLY IF EXISTS a CASCADE", {"path": "a"}),
        ("REINDEX INDEX CONCURRENTLY a", {"kind": "INDEX", "path": "a"}),
        ("REINDEX (VERBOSE, CONCURRENTLY) TABLE s.t", {"kind": "TABLE", "path": "s.t"}),
        ("REINDEX(CONCURRENTLY)SCHEMA s", {"kind": "SCHEMA", "path": "s"}),
        ("ALTER TABLE a.b DETACH PARTITION c CONCURRENTLY", {"partition": "c"}),
        ('ALTER TABLE IF EXISTS ONLY"a"* DETACH PARTITION"c"CONCURRENTLY', {"partition": '"c"'}),
        ("CREATE INDEX a ON t (b)", None),
        ("ALTER TABLE a DETACH PARTITION c", None),
        ("CALL p()", None),
        ("CREATE DATABASE d", None),
        ("", None),
    ],
)
def test_what_is_looked_for_in_the_catalog(text: str, looks_for: dict[str, object] | None) -> None:
    look = find_look(text)
    assert (vars(look) if look else None) == looks_for


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("VACUUM FULL t", True),
        ("REINDEX DATABASE d", True),
        ("ALTER SYSTEM SET x = 1", True),
        ("CLUSTER", True),
        ("ALTER TABLE t ADD a int", False),
        ("CALL p()", False),
        ("", False),
        ("'never closed", False),
    ],
)
def test_what_may_run_twice(text: str, may: bool) -> None:
    assert is_repeatable(text) is may


def _answer(*indexes: tuple[int, str, bool]) -> str:
    found = [[oid, name, valid, f"s.{name}"] for oid, name, valid in indexes]
    return json.dumps({"at": 7, "found": found})


@pytest.mark.parametrize(
    ("text", "before", "now", "verdict"),
    [
        pytest.param("a", (), (), Verdict(False), id="absent: it runs"),
        pytest.param("a", (), ((1, "a", True),), Verdict(True), id="valid: it is done"),
        pytest.param(
            "a",
            (),
            ((1, "a", False),),
            Verdict(False, ("DROP INDEX CONCURRENTLY IF EXISTS s.a",)),
            id="INVALID: it is dropped, and runs",
        ),
        pytest.param("a", (), ((1, "b", True),), Verdict(False), id="another index came meanwhile"),
        pytest.param(
            "a", ((1, "a", True),), ((1, "a", True),), Verdict(False), id="it was there before"
        ),
        pytest.param(
            "a",
            ((1, "a", False),),
            ((1, "a", False),),
            Verdict(False),
            id="so was this one",
        ),
    ],
)
def test_what_became_of_an_index(
    text: str,
    before: tuple[tuple[int, str, bool], ...],
    now: tuple[tuple[int, str, bool], ...],
    verdict: Verdict,
) -> None:
    look = find_look(f"CREATE INDEX CONCURRENTLY {text} ON t (b)")
    assert look is not None
    assert look.verdict(_answer(*before), _answer(*now)) == verdict


def test_what_a_reindex_has_left_is_dropped() -> None:
    """What was there before it is not, nor what another one builds."""
    look = find_look("REINDEX TABLE CONCURRENTLY t")
    assert look is not None
    before = ((1, "a", True), (2, "b_ccnew", False))
    left = ((3, "a_ccnew", False), (4, "b_ccold1", False), (5, "c", False), (6, "d_ccnew", True))
    assert look.verdict(_answer(*before), _answer(*before, *left)) == Verdict(
        False,
        (
            "DROP INDEX CONCURRENTLY IF EXISTS s.a_ccnew",
            "DROP INDEX CONCURRENTLY IF EXISTS s.b_ccold1",
        ),
    )
