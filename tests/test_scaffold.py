"""New project files: their names sort last, their text is valid, and nothing is overwritten."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from flux import directory
from flux.backends.sqlite import SQLiteBackend
from flux.config import FluxConfig
from flux.exceptions import (
    FluxMigrationException,
    InvalidConfigurationError,
    MigrationLoadingError,
)
from flux.migration import Order, misordered, sort_key
from flux.scaffold import new_migration, new_repeatable, next_id, write_config

TODAY = date(2024, 6, 2)


@pytest.fixture(autouse=True)
def _work_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _error(call: Callable[[], object], type_: type[FluxMigrationException]) -> str:
    with pytest.raises(type_) as caught:
        call()
    return str(caught.value)


# Ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "order", "id"),
    [
        pytest.param([], "text", "20240602_001_x", id="the first"),
        pytest.param(["20240601_007_a"], "text", "20240602_001_x", id="a new day"),
        pytest.param(["20240602_001_a"], "text", "20240602_002_x", id="the same day"),
        pytest.param(["20240602_009_a"], "text", "20240602_010_x", id="ten"),
        pytest.param(["20240602_002_a", "20240602_001_b"], "text", "20240602_003_x", id="unsorted"),
        pytest.param(["20240603_004_a"], "text", "20240603_005_x", id="a day ahead of us"),
        pytest.param(["20240602_999_a"], "text", "20240603_x", id="a thousand"),
        pytest.param(["20240602_999_a"], "natural", "20240602_1000_x", id="a thousand, natural"),
        pytest.param(["0042_a"], "text", "20240602_001_x", id="from numbers to dates"),
        pytest.param(["2024-06-01-a"], "text", "20240602_001_x", id="from dates to dates"),
        pytest.param(["20240601120000_a"], "text", "20240601120001_x", id="from timestamps"),
        pytest.param(["20240601120000_a"], "natural", "20240601120001_x", id="the same, natural"),
        pytest.param(["v1.8_a"], "text", "v1.9_x", id="versions"),
        pytest.param(["V009__a"], "text", "V010_x", id="Flyway's"),
        pytest.param(["v1.9_a", "v1.10_b"], "natural", "v1.11_x", id="versions, natural"),
        pytest.param(["9_a", "10_b"], "natural", "20240602_001_x", id="numbers, natural"),
        pytest.param(["30000101_001_a"], "text", "30000101_002_x", id="a date far ahead"),
    ],
)
def test_next_id(ids: list[str], order: Order, id: str) -> None:
    """It sorts after all others, and not only as text: the directory stays valid with it."""
    assert next_id("x", ids, TODAY, order) == id
    assert max([*ids, id], key=sort_key(order)) == id
    assert order == "natural" or id not in {one for pair in misordered([*ids, id]) for one in pair}


_BY_HAND = "hint: name the file by hand so that it sorts last"
_NATURAL = ', or set order = "natural" in the configuration'


@pytest.mark.parametrize(
    ("ids", "order", "message"),
    [
        pytest.param(
            ["add-users"],
            "text",
            f"no id of flux's form sorts after 'add-users'\n{_BY_HAND}{_NATURAL}",
            id="words",
        ),
        pytest.param(
            ["9_a"], "text", f"no id of flux's form sorts after '9_a'\n{_BY_HAND}{_NATURAL}", id="9"
        ),
        pytest.param(
            ["add-users"],
            "natural",
            f"no id of flux's form sorts after 'add-users'\n{_BY_HAND}",
            id="words, natural",
        ),
    ],
)
def test_no_next_id(ids: list[str], order: Order, message: str) -> None:
    assert _error(lambda: next_id("x", ids, TODAY, order), MigrationLoadingError) == message


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        pytest.param("Add users", "add-users", id="words"),
        pytest.param("  Add -- users!  ", "add-users", id="punctuation"),
        pytest.param("../../etc/passwd", "etc-passwd", id="a path"),
        pytest.param("Añadir UTF-8", "anadir-utf-8", id="accents"),
        pytest.param("Straße", "strasse", id="a letter that folds to two"),
        pytest.param("x" * 300, "x" * 80, id="long"),
        pytest.param("a" * 79 + " b", "a" * 79, id="long, with no hyphen at its end"),
        pytest.param("2fa", "2fa", id="a digit first"),
    ],
)
def test_slugs(title: str, slug: str) -> None:
    assert next_id(title, [], TODAY, "text") == f"20240602_001_{slug}"


@pytest.mark.parametrize("title", ["", " ", "!?", "Добавить"], ids=["empty", "blank", "!?", "Cyr."])
def test_a_title_that_names_nothing(title: str) -> None:
    message = _error(lambda: next_id(title, [], TODAY, "text"), InvalidConfigurationError)
    assert message == (
        f"{title!r} has no letter or digit that could name a file\n"
        'hint: for instance: flux new "Add users"'
    )


# Files --------------------------------------------------------------------------------------


def test_new_sql() -> None:
    files = new_migration("m", "Add users", ending=".sql", today=TODAY)
    stem = os.path.join("m", "20240602_001_add-users")
    assert files == [f"{stem}.sql", f"{stem}.undo.sql"]
    assert [Path(file).read_text() for file in files] == ["-- Add users\n", "-- Undo: Add users\n"]


def test_new_python() -> None:
    (file,) = new_migration("m", "Add users", ending=".py", today=TODAY)
    assert file == os.path.join("m", "20240602_001_add-users.py")
    assert Path(file).read_text() == (
        '"""Add users"""\n\n\n'
        'def apply():\n    return """\n    """\n\n\n'
        'def undo():\n    return """\n    """\n'
    )


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        pytest.param(".sql", "-- Views\n", id="SQL"),
        pytest.param(
            ".py", '"""Views"""\n\n\ndef apply():\n    return """\n    """\n', id="Python"
        ),
    ],
)
def test_new_repeatable(ending: str, text: str) -> None:
    (file,) = new_repeatable("m", "post-apply", "Views", ending=ending, today=TODAY)
    assert file == os.path.join("m", "post-apply", f"20240602_001_views{ending}")
    assert Path(file).read_text() == text
    (second,) = new_repeatable("m", "post-apply", "Views", ending=ending, today=TODAY)
    assert second == os.path.join("m", "post-apply", f"20240602_002_views{ending}")


@pytest.mark.parametrize(
    "title",
    [
        pytest.param('Add "users"', id="quotes"),
        pytest.param('Add """users"""', id="quotes of a docstring"),
        pytest.param('"', id="a quote"),
        pytest.param("Move C:\\users\\new", id="backslashes"),
        pytest.param("Add users\nDROP TABLE users;", id="lines"),
        pytest.param("Add {title} {0} %s", id="placeholders"),
        pytest.param("Add \udce4 users", id="what is no UTF-8"),
        pytest.param("Añadir usuários", id="accents"),
    ],
)
def test_any_title_makes_files_that_can_be_read(title: str) -> None:
    """The title stands in a comment or a docstring, and does not get out of it."""
    title = f"{title} x"
    for ending in (".sql", ".py"):
        new_migration("m", title, ending=ending, today=TODAY)
    for migration in directory.read("m").migrations:
        assert migration.script.text is not None
        assert not [
            line
            for line in migration.script.text.splitlines()
            if line.strip() and not line.startswith("-- ")
        ]
        assert migration.undo_script().text is not None
    (python,) = Path("m").glob("*.py")
    names: dict[str, object] = {}
    exec(python.read_text(encoding="utf-8"), names)  # noqa: S102 - what flux wrote
    shown = " ".join(title.encode("utf-8", "replace").decode().split())
    assert names["__doc__"] == shown


def test_new_heeds_the_history() -> None:
    """A colleague's migration may be applied, and its file not be here yet."""
    files = new_migration(
        "m", "x", ending=".sql", today=TODAY, known_ids=["20240602_004_of-a-colleague"]
    )
    assert files[0] == os.path.join("m", "20240602_005_x.sql")


@pytest.mark.skipif(os.name == "nt", reason="other words on Windows")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda: Path("m").touch(), "m: cannot be written: File exists", id="a file in its place"
        ),
        pytest.param(
            lambda: os.symlink("/proc/nowhere", "m"),
            "m: cannot be written: File exists",
            id="a broken link in its place",
        ),
    ],
)
def test_a_directory_that_cannot_be_made(make: Callable[[], None], message: str) -> None:
    make()
    call = lambda: new_migration("m", "x", ending=".sql", today=TODAY)  # noqa: E731
    assert _error(call, InvalidConfigurationError) == message


# Configuration ------------------------------------------------------------------------------

_FILE = """\
# flux: database migrations. Every setting: docs/configuration.md

[flux]
backend = "sqlite"
migration_directory = "migrations"   # relative to this file

# The database's address; FLUX_DATABASE_URL and the command line come before it.
# ${NAME} takes an environment variable.
database_url = "sqlite:///app.db"

# log_level = "INFO"                 # DEBUG, INFO, WARNING or ERROR
# lock_wait = 300                    # seconds to wait while another flux runs
# connect_wait = 0                   # seconds to wait for a database that is still starting
# order = "text"                     # or "natural": 10_x after 9_x
# missing = "refuse"                 # or "allow-newer": start beside a newer database
# late = "refuse"                    # or "allow", or "prove" that their order does not matter
# apply_repeatable_on_undo = true    # run pre-apply and post-apply around a rollback, too
# post_apply_on_failure = false      # run post-apply also when a batch failed
# shadow_url = "..."                 # where `flux test` makes its databases; default: beside yours
# require_undo = false               # have `flux test` fail where there is no undo
# ignore = []                        # what `flux schema` and `flux drift` leave out

[backend]
# migrations_table = "_flux_migrations"
# busy_timeout = 30   # seconds to wait while another connection writes
"""


def test_write_config() -> None:
    assert write_config("flux.toml", SQLiteBackend, "sqlite") == [
        "flux.toml",
        "migrations" + os.sep,
    ]
    assert Path("flux.toml").read_text() == _FILE
    assert FluxConfig.from_file("flux.toml").database_url == "sqlite:///app.db"
    assert directory.read("migrations").migrations == ()


def test_every_setting_it_shows_is_its_default() -> None:
    """A user who takes away a `#` changes nothing yet, and no setting is mistyped."""
    write_config("flux.toml", SQLiteBackend, "sqlite")
    before = FluxConfig.from_file("flux.toml")
    text = Path("flux.toml").read_text()
    for setting in ("log_level", "lock_wait", "order", "apply_", "post_", "migrations_t", "busy_"):
        assert f"# {setting}" in text
        text = text.replace(f"# {setting}", setting)
    Path("flux.toml").write_text(text)
    after = FluxConfig.from_file("flux.toml")
    assert after._replace(backend_config={}) == before
    SQLiteBackend.from_config(after, "app.db")


def test_the_address_of_a_server_is_for_the_user_to_write() -> None:
    class Cool(SQLiteBackend):
        url_example = "cool://host/db"
        config_example = "# fast = true"

    write_config("flux.toml", Cool, "cooldb")
    text = Path("flux.toml").read_text()
    assert 'backend = "cooldb"\n' in text
    assert '\n# database_url = "cool://host/db"\n' in text
    assert text.endswith("\n[backend]\n# fast = true\n")


def test_write_config_keeps_what_is_there() -> None:
    os.mkdir("migrations")
    assert write_config("other.toml", SQLiteBackend, "sqlite") == ["other.toml"]
    Path("flux.toml").write_text("mine")
    message = _error(
        lambda: write_config("flux.toml", SQLiteBackend, "sqlite"), InvalidConfigurationError
    )
    assert message == (
        "flux.toml is there already, and is left as it is\n"
        "hint: remove it first, or name another file with --config"
    )
    assert Path("flux.toml").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="other words on Windows")
def test_a_file_that_cannot_be_written() -> None:
    message = _error(
        lambda: write_config("none/flux.toml", SQLiteBackend, "sqlite"), InvalidConfigurationError
    )
    assert message == "none/flux.toml: cannot be written: No such file or directory"
    assert not os.path.exists("none")


def test_what_is_new_can_be_applied_at_once() -> None:
    """`flux init`, `flux new`, `flux apply`: nothing has to be filled in for it to work."""
    from flux import FluxRunner

    write_config("flux.toml", SQLiteBackend, "sqlite")
    new_migration("migrations", "One", ending=".sql", today=TODAY)
    new_migration("migrations", "Two", ending=".py", today=TODAY)
    with FluxRunner.from_file("flux.toml") as runner:
        result = runner.apply_migrations()
        assert result.applied == ("20240602_001_one", "20240602_002_two")
        assert runner.rollback_migrations(None).undone == result.applied[::-1]
    connection = sqlite3.connect("app.db")
    rows = connection.execute("SELECT * FROM _flux_migrations").fetchall()
    connection.close()
    assert rows == []
