"""Ids and their order, hashes and their rules, directives: what a history depends on."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

import pytest

from flux.exceptions import IrreversibleMigrationError, Location, MigrationLoadingError
from flux.migration import (
    Directives,
    Migration,
    Order,
    Repeatable,
    Script,
    fold,
    is_legacy_hash,
    misordered,
    numeric_prefix,
    read_directives,
    sort_key,
    text_hash,
)

# Order --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        pytest.param("text", ["10_b", "1_a", "2_c"], id="text"),
        pytest.param("text", ["2024_a", "2024_b", "Z", "a", "é"], id="text, by code points"),
        pytest.param("text", ["a b", "a-b", "a.b", "ab"], id="text, with dots and spaces"),
        pytest.param("natural", ["1_a", "2_c", "10_b"], id="numbers"),
        pytest.param("natural", ["v1.2", "v1.10", "v2.0"], id="versions"),
        pytest.param("natural", ["01_x", "1_x", "2_x"], id="the same number twice"),
        pytest.param("natural", ["1_a", "a", "a1", "a1b", "a2", "ab"], id="numbers and letters"),
        pytest.param("natural", ["1_x_2", "1_x_10"], id="a second number"),
        pytest.param("natural", ["9" * 60, "1" + "0" * 60], id="numbers of any length"),
    ],
)
def test_order(order: Order, ids: list[str]) -> None:
    assert sorted(set(ids), key=sort_key(order)) == ids


@pytest.mark.parametrize(
    ("id", "prefix"),
    [
        pytest.param("20240422_001_x", ("", (20240422, 1)), id="date and number"),
        pytest.param("2024-04-22.1 x", ("", (2024, 4, 22, 1)), id="a date with hyphens"),
        pytest.param("v1.10_x", ("v", (1, 10)), id="version"),
        pytest.param("V1__x", ("V", (1,)), id="Flyway's"),
        pytest.param("7", ("", (7,)), id="a number alone"),
        pytest.param("add-users", None, id="none"),
        pytest.param("add-users-2", None, id="a number further behind"),
    ],
)
def test_numeric_prefix(id: str, prefix: tuple[str, tuple[int, ...]] | None) -> None:
    assert numeric_prefix(id) == prefix


@pytest.mark.parametrize(
    ("ids", "pairs"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["1_a", "2_b", "9_c"], [], id="one digit"),
        pytest.param(["001_a", "002_b", "010_c"], [], id="padded"),
        pytest.param(["1_a", "2_b", "10_c"], [("10_c", "1_a")], id="ten before one"),
        pytest.param(["v1.2", "v1.10"], [("v1.10", "v1.2")], id="versions"),
        pytest.param(["20240422_001_a", "20240422_002_b"], [], id="flux's own"),
        pytest.param(
            ["20240422_1_a", "20240422_10_b"], [("20240422_10_b", "20240422_1_a")], id="2nd"
        ),
        pytest.param(
            ["20240601120000_a", "20240602_001_b"],
            [("20240601120000_a", "20240602_001_b")],
            id="dates of two lengths",
        ),
        pytest.param(["10_a", "v2_b", "V1_c", "x"], [], id="numbers of several kinds"),
        pytest.param(["1_a", "1_b", "01_c"], [], id="one number"),
    ],
)
def test_misordered(ids: list[str], pairs: list[tuple[str, str]]) -> None:
    assert misordered(ids) == pairs


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("1_Add-Users", "1_add-users", True, id="case"),
        pytest.param("1_caf\u00e9", "1_cafe\u0301", True, id="Unicode form"),
        pytest.param("1_STRASSE", "1_straße", True, id="case beyond ASCII"),
        pytest.param("1_CAFE\u0301", "1_caf\u00e9", True, id="both"),
        pytest.param("1_cafe", "1_café", False, id="an accent"),
        pytest.param("1_a", "1-a", False, id="punctuation"),
    ],
)
def test_fold(one: str, other: str, same: bool) -> None:
    assert (fold(one) == fold(other)) is same


# Hashes -------------------------------------------------------------------------------------

#: SHA-256 of "SELECT 1;", and what 0.0.3 wrote for the same: its MD5.
_SELECT = "17db4fd369edb9244b9f91d9aeed145c3d04ad8ba6e95d06247f07a63527d11a"
_SELECT_MD5 = "71568061b2970a4b7c5160fe75356e10"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("SELECT 1;", id="as it is"),
        pytest.param("SELECT 1;\n", id="a newline at its end"),
        pytest.param("SELECT 1; \t\r\n\n\f\v", id="white space at its end"),
        pytest.param("\ufeffSELECT 1;", id="BOM"),
    ],
)
def test_the_hash_is_pinned(raw: str) -> None:
    """Editors, linters and git may change all this, and the migration is the same."""
    assert Migration.from_text("x", raw).hash == _SELECT


@pytest.mark.parametrize(
    ("raw", "hash"),
    [
        pytest.param(
            "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", id="empty"
        ),
        pytest.param(
            "é;\n", "4fc061f0061ec1d1d430042068bd1b48c7cc517af4f7ddd474c7fcd4e9f5ac3f", id="UTF-8"
        ),
        pytest.param(
            "a\nb\n",
            "7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78",
            id="two lines",
        ),
    ],
)
def test_more_pinned_hashes(raw: str, hash: str) -> None:
    assert Migration.from_text("x", raw).hash == hash


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
def test_line_endings_are_no_change(ending: str) -> None:
    text = ending.join(["SELECT 'a", "b';", ""])
    assert Migration.from_text("x", text).hash == Migration.from_text("x", "SELECT 'a\nb';").hash


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("SELECT 2;", id="a character"),
        pytest.param("SELECT  1;", id="a space within"),
        pytest.param(" SELECT 1;", id="a space before"),
        pytest.param("select 1;", id="case"),
        pytest.param("SELECT 1; -- x", id="a comment"),
        pytest.param("SELECT 1;\u00a0", id="a no-break space, which is no white space to SQL"),
        pytest.param("SELECT 1;\ufeff", id="a BOM at the end"),
        pytest.param("\ufeff\ufeffSELECT 1;", id="a second BOM"),
    ],
)
def test_what_is_sent_otherwise_is_a_change(raw: str) -> None:
    assert Migration.from_text("x", raw).hash != _SELECT


@pytest.mark.parametrize(
    ("raw", "recorded", "matches"),
    [
        pytest.param("SELECT 1;", _SELECT, True, id="hash of today"),
        pytest.param("SELECT 2;", _SELECT, False, id="hash of today, changed"),
        pytest.param("SELECT 1;\n", _SELECT, True, id="hash of today, final newline"),
        pytest.param("SELECT 1;", _SELECT_MD5, True, id="0.0.3"),
        pytest.param("SELECT 2;", _SELECT_MD5, False, id="0.0.3, changed"),
        pytest.param("SELECT 1;\n", _SELECT_MD5, False, id="0.0.3 kept a final newline"),
        pytest.param("\ufeffSELECT 1;", _SELECT_MD5, False, id="0.0.3 kept the BOM"),
        pytest.param("SELECT 1;", "", False, id="no hash"),
        pytest.param("SELECT 1;", "?" * 32, False, id="32 of something else"),
    ],
)
def test_a_hash_is_verified_by_the_rule_it_was_written_with(
    raw: str, recorded: str, matches: bool
) -> None:
    assert Migration.from_text("x", raw).matches(recorded) is matches


def test_0_0_3_knew_no_functions_of_the_connection() -> None:
    script = Script(path="x.py", hash="0" * 64, function=lambda connection: None)
    assert script.legacy_hash is None
    assert not Migration("x", script).matches("d41d8cd98f00b204e9800998ecf8427e")


@pytest.mark.parametrize(
    ("hash", "legacy"),
    [
        pytest.param(_SELECT_MD5, True, id="MD5"),
        pytest.param(_SELECT, False, id="SHA-256"),
        pytest.param("", False, id="none"),
    ],
)
def test_is_legacy_hash(hash: str, legacy: bool) -> None:
    assert is_legacy_hash(hash) is legacy


@pytest.mark.parametrize("length", [0, 2047, 2048, 2049, 1 << 20, (1 << 20) + 1])
def test_a_hash_is_the_same_however_long_the_text(length: int) -> None:
    """OpenSSL hashes the long ones, and in pieces."""
    text = "ü" * length
    assert text_hash(f"{text}\n \n") == sha256(text.encode()).hexdigest()


def test_what_is_sent_is_what_is_hashed() -> None:
    script = Script.from_text("\ufeffSELECT 1;\r\nSELECT 2;\r", "x.sql")
    assert script.text == "SELECT 1;\nSELECT 2;\n"
    assert script.location(10) == Location("x.sql", 2, 1, "SELECT 2;")
    assert script.location() == Location("x.sql")


# Records ------------------------------------------------------------------------------------


def test_a_migration_in_memory() -> None:
    migration = Migration.from_text("1_x", "CREATE TABLE t (a int);", "DROP TABLE t;")
    assert migration.path == "1_x.sql"
    assert migration.script.text == "CREATE TABLE t (a int);"
    assert migration.undo_script().text == "DROP TABLE t;"
    assert migration.undo_script().path == "1_x.undo.sql"


def test_the_undo_is_no_part_of_the_hash() -> None:
    assert Migration.from_text("x", "SELECT 1;", "SELECT 2;").hash == _SELECT


def test_no_undo() -> None:
    migration = Migration.from_text("1_x", "CREATE TABLE t (a int);")
    assert migration.read_undo is None
    with pytest.raises(IrreversibleMigrationError) as caught:
        migration.undo_script()
    assert str(caught.value) == "1_x.sql: 1_x has no undo"


def test_a_repeatable_is_named_after_its_place() -> None:
    repeatable = Repeatable("views", "post-apply", Script.from_text("", "post-apply/views.sql"))
    assert (repeatable.name, repeatable.path) == ("post-apply/views", "post-apply/views.sql")


# Directives ---------------------------------------------------------------------------------

_NONE = Directives()
_NO_TRANSACTION = Directives(no_transaction=True)


@pytest.mark.parametrize(
    ("text", "ending", "directives"),
    [
        pytest.param("", ".sql", _NONE, id="empty"),
        pytest.param("SELECT 1;", ".sql", _NONE, id="none"),
        pytest.param("-- flux: no-transaction\nSELECT 1;", ".sql", _NO_TRANSACTION, id="one"),
        pytest.param("--flux:no-transaction", ".sql", _NO_TRANSACTION, id="no spaces"),
        pytest.param("\n\n  -- flux: no-transaction\n", ".sql", _NO_TRANSACTION, id="indented"),
        pytest.param("-- flux: no_transaction\n", ".sql", _NO_TRANSACTION, id="an underscore"),
        pytest.param(
            "-- Adds an index.\n/* By\n   hand. */\n-- flux: no-transaction\n",
            ".sql",
            _NO_TRANSACTION,
            id="after other comments",
        ),
        pytest.param(
            "-- flux: no-transaction, on-change foreign-keys\n",
            ".sql",
            Directives(no_transaction=True, foreign_keys=True, on_change=True),
            id="several",
        ),
        pytest.param(
            "-- flux: on-change\n-- flux: foreign-keys\n",
            ".sql",
            Directives(foreign_keys=True, on_change=True),
            id="several lines",
        ),
        pytest.param("-- flux:\nSELECT 1;", ".sql", _NONE, id="an empty one"),
        pytest.param("SELECT 1;\n-- flux: a tool\n", ".sql", _NONE, id="prose further below"),
        pytest.param("SELECT 'flux: on-change'", ".sql", _NONE, id="in a literal"),
        pytest.param("# flux: on-change\nx = 1\n", ".py", Directives(on_change=True), id="Python"),
        pytest.param(
            "#!/usr/bin/python\n# Words.\n\n# flux: on-change\n",
            ".py",
            Directives(on_change=True),
            id="Python, after other comments",
        ),
        pytest.param("-- flux: on-change\n", ".py", _NONE, id="SQL's comment in Python"),
        pytest.param("# flux: on-change\n", ".sql", _NONE, id="Python's comment in SQL"),
    ],
)
def test_directives(text: str, ending: Literal[".sql", ".py"], directives: Directives) -> None:
    assert read_directives(text, ending, "x") == directives


_BELOW = (
    "a directive stands below the first statement, where it has no effect\n"
    "    {line} | {source}\n"
    "      | ^\n"
    "hint: move it to the comments at the top of the file"
)


@pytest.mark.parametrize(
    ("text", "ending", "message"),
    [
        pytest.param(
            "-- A.\n-- flux: no-transactions\n",
            ".sql",
            "x:2:1: unknown directive 'no-transactions'\n"
            "    2 | -- flux: no-transactions\n"
            "      | ^\n"
            "hint: did you mean 'no-transaction'?",
            id="mistyped",
        ),
        pytest.param(
            "-- flux: lock-timout=2s\n",
            ".sql",
            "x:1:1: unknown directive 'lock-timout=2s'\n"
            "    1 | -- flux: lock-timout=2s\n"
            "      | ^\n"
            "hint: did you mean 'lock-timeout=5s'?",
            id="mistyped, with a value",
        ),
        pytest.param(
            "-- flux: lock-timeout=soon\n",
            ".sql",
            "x:1:1: unknown directive 'lock-timeout=soon'\n"
            "    1 | -- flux: lock-timeout=soon\n"
            "      | ^\n"
            "hint: there are: no-transaction, foreign-keys, on-change, "
            "lock-timeout=5s, statement-timeout=5s",
            id="a wrong value",
        ),
        pytest.param(
            "-- A.\n-- flux: xyzzy\n",
            ".sql",
            "x:2:1: unknown directive 'xyzzy'\n"
            "    2 | -- flux: xyzzy\n"
            "      | ^\n"
            "hint: there are: no-transaction, foreign-keys, on-change, "
            "lock-timeout=5s, statement-timeout=5s",
            id="unknown",
        ),
        pytest.param(
            "-- flux: No-Transaction\n",
            ".sql",
            "x:1:1: unknown directive 'No-Transaction'\n"
            "    1 | -- flux: No-Transaction\n"
            "      | ^\n"
            "hint: did you mean 'no-transaction'?",
            id="capitals",
        ),
        pytest.param(
            "SELECT 1;\n-- flux: no-transaction\n",
            ".sql",
            "x:2:1: " + _BELOW.format(line=2, source="-- flux: no-transaction"),
            id="too late",
        ),
        pytest.param(
            '"""Words."""\n# flux: on-change\n',
            ".py",
            "x:2:1: " + _BELOW.format(line=2, source="# flux: on-change"),
            id="below a docstring",
        ),
    ],
)
def test_directives_that_would_not_be_heeded(
    text: str, ending: Literal[".sql", ".py"], message: str
) -> None:
    with pytest.raises(MigrationLoadingError) as caught:
        read_directives(text, ending, "x")
    assert str(caught.value) == message


def test_directives_of_a_file_and_of_the_text_it_gave_add_up() -> None:
    script = Script.from_text(
        "-- flux: on-change\nSELECT 1;", "x.py", directives=Directives(no_transaction=True)
    )
    assert script.directives == Directives(no_transaction=True, on_change=True)


def test_a_directive_in_what_a_function_gave_is_placed_there() -> None:
    with pytest.raises(MigrationLoadingError) as caught:
        Script.from_text("-- flux: nothing", "x.py", within="apply()")
    assert str(caught.value).splitlines()[0] == (
        "x.py (line 1, column 1, in what apply() gave): unknown directive 'nothing'"
    )
