"""Transaction control in a migration's text: an outermost pair is flux's own, the rest is not."""

from __future__ import annotations

import pytest

from flux.statements import Dialect, Statement, split
from flux.transactions import controls_transaction, unwrap


def _statements(text: str, dialect: Dialect) -> list[Statement]:
    return [piece for piece in split(text, dialect) if isinstance(piece, Statement)]


@pytest.mark.parametrize(
    ("dialect", "text", "left", "modes"),
    [
        pytest.param("postgres", "", [], "", id="nothing"),
        pytest.param("postgres", "a; b;", ["a", "b"], "", id="no pair"),
        pytest.param("postgres", "BEGIN; a; b; COMMIT;", ["a", "b"], "", id="a pair"),
        pytest.param("postgres", "begin; a; end", ["a"], "", id="small letters, END"),
        pytest.param("postgres", "BEGIN; COMMIT;", [], "", id="a pair around nothing"),
        pytest.param(
            "postgres",
            "-- x\nBEGIN -- y\n; a; /* z */ COMMIT -- w",
            ["a"],
            "",
            id="comments",
        ),
        pytest.param("postgres", "BEGIN WORK; a; COMMIT WORK;", ["a"], "", id="WORK"),
        pytest.param("postgres", "BEGIN TRANSACTION; a; END TRANSACTION;", ["a"], "", id="long"),
        pytest.param("postgres", "START TRANSACTION; a; COMMIT;", ["a"], "", id="START"),
        pytest.param(
            "postgres",
            "BEGIN ISOLATION LEVEL SERIALIZABLE; a; COMMIT;",
            ["a"],
            "ISOLATION LEVEL SERIALIZABLE",
            id="modes",
        ),
        pytest.param(
            "postgres",
            "START TRANSACTION\n  READ WRITE, DEFERRABLE; a; COMMIT;",
            ["a"],
            "READ WRITE, DEFERRABLE",
            id="modes behind START TRANSACTION",
        ),
        pytest.param("postgres", "BEGIN; a;", ["BEGIN", "a"], "", id="not closed"),
        pytest.param("postgres", "a; COMMIT;", ["a", "COMMIT"], "", id="not opened"),
        pytest.param("postgres", "BEGIN;", ["BEGIN"], "", id="alone"),
        pytest.param("postgres", "COMMIT;", ["COMMIT"], "", id="the other alone"),
        pytest.param("postgres", "BEGIN; a; ROLLBACK;", ["BEGIN", "a", "ROLLBACK"], "", id="back"),
        pytest.param(
            "postgres",
            "BEGIN; a; COMMIT AND CHAIN;",
            ["BEGIN", "a", "COMMIT AND CHAIN"],
            "",
            id="chain",
        ),
        pytest.param(
            "postgres",
            "BEGIN; a; COMMIT PREPARED 'x';",
            ["BEGIN", "a", "COMMIT PREPARED 'x'"],
            "",
            id="prepared",
        ),
        pytest.param(
            "postgres",
            "BEGIN; a; COMMIT; b;",
            ["BEGIN", "a", "COMMIT", "b"],
            "",
            id="not around all",
        ),
        pytest.param(
            "postgres",
            "BEGIN; a; COMMIT; BEGIN; b; COMMIT;",
            ["a", "COMMIT", "BEGIN", "b"],
            "",
            id="two pairs: what is left is refused",
        ),
        pytest.param(
            "postgres", 'SELECT begin; "COMMIT"', ["SELECT begin", '"COMMIT"'], "", id="names"
        ),
        pytest.param("sqlite", "BEGIN IMMEDIATE; a; COMMIT;", ["a"], "", id="SQLite"),
        pytest.param(
            "sqlite",
            "BEGIN EXCLUSIVE TRANSACTION; a; END TRANSACTION;",
            ["a"],
            "",
            id="SQLite, long",
        ),
        pytest.param(
            "sqlite",
            "PRAGMA foreign_keys=OFF; BEGIN; a; COMMIT; PRAGMA foreign_keys=ON;",
            ["PRAGMA foreign_keys=OFF", "a", "PRAGMA foreign_keys=ON"],
            "",
            id="SQLite's recipe for a table rebuild",
        ),
        pytest.param("sqlite", "PRAGMA a; PRAGMA b;", ["PRAGMA a", "PRAGMA b"], "", id="PRAGMAs"),
        pytest.param(
            "postgres",
            "PRAGMA a; BEGIN; b; COMMIT;",
            ["PRAGMA a", "BEGIN", "b", "COMMIT"],
            "",
            id="not so elsewhere",
        ),
    ],
)
def test_unwrap(dialect: Dialect, text: str, left: list[str], modes: str) -> None:
    unwrapped = unwrap(_statements(text, dialect), dialect)
    assert [statement.text for statement in unwrapped.statements] == left
    assert unwrapped.modes == modes


@pytest.mark.parametrize(
    ("dialect", "text", "controls"),
    [
        *(
            pytest.param(dialect, text, True, id=f"{dialect}: {text}")
            for dialect in ("postgres", "sqlite", "generic")
            for text in ("BEGIN", "begin", "COMMIT", "END", "ROLLBACK", "/* x */ COMMIT -- y")
        ),
        *(
            pytest.param("postgres", text, True, id=text)
            for text in (
                "START TRANSACTION",
                "BEGIN READ ONLY",
                "COMMIT AND CHAIN",
                "ROLLBACK AND NO CHAIN",
                "ABORT",
                "PREPARE TRANSACTION 'x'",
                "COMMIT PREPARED 'x'",
                "ROLLBACK PREPARED 'x'",
            )
        ),
        *(
            pytest.param("postgres", text, False, id=text)
            for text in (
                "SAVEPOINT a",
                "RELEASE SAVEPOINT a",
                "ROLLBACK TO a",
                "ROLLBACK TO SAVEPOINT a",
                "ROLLBACK WORK TO a",
                "rollback transaction to savepoint a",
                "PREPARE transactions AS SELECT 1",
                "START_TRANSACTION",
                "SELECT 'BEGIN'",
                "-- BEGIN\nSELECT 1",
                '"commit"',
                "DO $$ BEGIN NULL; END $$",
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
                "SET TRANSACTION READ ONLY",
            )
        ),
        *(
            pytest.param("sqlite", text, False, id=f"sqlite: {text}")
            for text in (
                "SAVEPOINT a",
                "RELEASE a",
                "ROLLBACK TO a",
                "ROLLBACK TRANSACTION TO SAVEPOINT a",
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END",
                "START TRANSACTION",
            )
        ),
    ],
)
def test_controls_transaction(dialect: Dialect, text: str, controls: bool) -> None:
    """Savepoints stay within flux's transaction; all else would end it, or open another."""
    (statement,) = _statements(text, dialect)
    assert controls_transaction(statement, dialect) is controls
