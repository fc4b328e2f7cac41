"""Texts of applied migrations are not kept; what is read again is what was read at first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path

import pytest

import flux
from flux.exceptions import (
    MigrationDirectoryCorruptedError,
    MigrationLoadingError,
)
from flux.migration import OnDisk, Script
from tests.project import Project

#: A migration that makes the table `book`, in each of the forms that there are.
_FORMS = {
    "sql": {"2.sql": "CREATE TABLE book (id);\n", "2.undo.sql": "DROP TABLE book;\n"},
    "text": {
        "2.py": "def apply(): return 'CREATE TABLE book (id)'\n"
        "def undo(): return 'DROP TABLE book'\n"
    },
    "function": {
        "2.py": "def apply(connection): connection.execute('CREATE TABLE book (id)')\n"
        "def undo(connection): connection.execute('DROP TABLE book')\n"
    },
}
_RUN = "give the command again, which looks at the file as it is now"


@pytest.fixture(params=_FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """How the second of three migrations is written."""
    return str(request.param)


@pytest.fixture
def shop(project: Project, form: str, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in which two of three migrations are applied; its directory is where tests work."""
    first = {"1.sql": "CREATE TABLE shop (id);\n", "1.undo.sql": "DROP TABLE shop;\n"}
    project.add({**first, **_FORMS[form]})
    project.succeed("apply")
    project.add({"3.sql": "CREATE TABLE page (id);\n", "3.undo.sql": "DROP TABLE page;\n"})
    monkeypatch.chdir(project.root)
    return project


@contextmanager
def _runner() -> Iterator[flux.FluxRunner]:
    """A runner that has read its directory, whose paths count from where the program is."""
    with flux.FluxRunner.from_file("flux.toml") as runner:
        assert runner.directory.path == "migrations"
        yield runner


def _changed(shop: Project) -> Path:
    """The file of the second migration, after it has been made to make another table."""
    [path] = [path for path in (shop.root / "migrations").glob("2.*") if ".undo" not in path.name]
    path.write_text(path.read_text().replace("book", "other"))
    return path.relative_to(shop.root)


#: A file of Python is run once, and what it gave is kept.
only_sql = pytest.mark.parametrize("form", ["sql"], indirect=True)


def test_of_sql_only_what_is_pending_is_kept(shop: Project, form: str) -> None:
    with _runner() as runner:
        migrations = runner.directory.migrations
        second = OnDisk if form == "sql" else Script
        assert [type(one.kept) for one in migrations] == [OnDisk, second, Script]


@pytest.mark.parametrize("command", [["rollback", "-y"], ["validate"], ["drift"]])
@pytest.mark.parametrize("form", ["sql"], indirect=True)
def test_a_file_of_python_may_register_what_it_makes(shop: Project, command: list[str]) -> None:
    """In a module of the project, which refuses to have it twice."""
    (shop.root / "register.py").write_text(
        "seen = set()\ndef table(name):\n    assert name not in seen\n    seen.add(name)\n"
        "    return name\n"
    )
    os.remove("migrations/3.sql")
    os.remove("migrations/3.undo.sql")
    shop.add(
        {
            "3.py": "from register import table\nNAME = table('page')\n"
            "def apply(): return f'CREATE TABLE {NAME} (id)'\n"
            "def undo(): return f'DROP TABLE {NAME}'\n"
        }
    )
    shop.succeed("apply")
    shop.succeed(*command)


@only_sql
@pytest.mark.parametrize("command", ["status", "validate", "apply"])
def test_a_broken_directory_is_told_where_no_database_answers(shop: Project, command: str) -> None:
    shop.add({"4.py": "x("})
    os.mkdir("app.db.d")
    result = shop.run(command, "sqlite:///app.db.d")
    assert "4.py:1:2: SyntaxError" in result.out + result.err
    os.remove("migrations/4.py")
    assert "cannot open app.db.d" in shop.run(command, "sqlite:///app.db.d").err


def test_what_is_divergent_is_told_as_ever(shop: Project) -> None:
    path = _changed(shop)
    with _runner() as runner, pytest.raises(MigrationDirectoryCorruptedError) as caught:
        runner.apply_migrations()
    assert f"{path}: 2 is divergent: it has changed since it was applied" in str(caught.value)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_what_was_rolled_back_is_applied_again(
    shop: Project,
    elsewhere: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """By one runner, also when the program changes its working directory meanwhile."""
    with _runner() as runner:
        if elsewhere:
            monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert runner.rollback_migrations(None).undone == ("2", "1")
        assert shop.tables() == []
        assert runner.apply_migrations().applied == ("1", "2", "3")
        assert runner.rollback_migrations(None).undone == ("3", "2", "1")
        assert runner.apply_migrations(2).applied == ("1", "2")
    assert shop.tables() == ["book", "shop"]


@only_sql
@pytest.mark.parametrize("when", ["before the plan", "in the lock"])
def test_a_file_that_changes_after_it_was_read_is_not_applied(
    shop: Project, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what is before it in the same batch is."""
    with _runner() as runner:
        runner.rollback_migrations(None)
        if when == "in the lock":
            monkeypatch.setattr(runner, "check", lambda _: None)
        path = _changed(shop)
        with pytest.raises(MigrationDirectoryCorruptedError) as caught:
            runner.apply_migrations()
        assert str(caught.value) == f"{path}: 2 has changed since flux looked at it\nhint: {_RUN}"
        assert [(one.kind, one.ids) for one in caught.value.problems] == [("changed", ("2",))]
        assert (shop.tables(), shop.applied()) == ([], [])
    with _runner() as runner:  # as another command
        assert runner.apply_migrations().applied == ("1", "2", "3")
    assert shop.tables() == ["other", "page", "shop"]


@only_sql
def test_a_file_that_is_removed_after_it_was_read_is_missed(shop: Project) -> None:
    with _runner() as runner:
        runner.rollback_migrations(None)
        path = _changed(shop)
        path.unlink()
        with pytest.raises(MigrationLoadingError) as caught:
            runner.apply_migrations()
        assert str(caught.value) == f"{path}: cannot be read: No such file or directory"
        assert (shop.tables(), shop.applied()) == ([], [])


@only_sql
def test_everything_is_checked(shop: Project) -> None:
    """`validate` looks into every text, and finds a file that changes meanwhile."""
    with _runner() as runner:
        assert runner.check_directory() == ()
        _changed(shop)
        with pytest.raises(MigrationDirectoryCorruptedError):
            runner.check_directory()


@pytest.mark.parametrize("form", ["sql", "text"], indirect=True)
def test_a_late_migration_is_proven_with_what_is_applied(shop: Project) -> None:
    shop.configure('late = "prove"')
    shop.add({"0.sql": "CREATE TABLE early (id);\n"})
    with _runner() as runner:
        assert runner.apply_migrations().applied == ("0", "3")
    assert shop.tables() == ["book", "early", "page", "shop"]


@only_sql
def test_nothing_is_proven_with_another_text(shop: Project) -> None:
    shop.configure('late = "prove"')
    shop.add({"0.sql": "CREATE TABLE early (id);\n"})
    with _runner() as runner:
        _changed(shop)
        with pytest.raises(MigrationDirectoryCorruptedError, match="2 has changed"):
            runner.apply_migrations()
    assert shop.applied() == ["1", "2"]


@pytest.mark.parametrize("form", ["sql", "text"], indirect=True)
def test_a_hash_of_0_0_3_goes_on_to_be_compared(shop: Project, form: str) -> None:
    """That needs the text: it is kept."""
    text = "CREATE TABLE book (id);\n" if form == "sql" else "CREATE TABLE book (id)"
    old = md5(text.encode(), usedforsecurity=False).hexdigest()
    shop.query(f"UPDATE _flux_migrations SET hash = '{old}' WHERE id = '2'")
    with _runner() as runner:
        assert type(runner.directory.migrations[1].kept) is Script
        assert runner.apply_migrations().applied == ("3",)
        assert runner.rollback_migrations(2).undone == ("3", "2")
        assert runner.apply_migrations().applied == ("2", "3")


@pytest.mark.parametrize("form", ["text"], indirect=True)
def test_a_file_of_python_finds_what_is_beside_it(
    shop: Project, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Helpers beside it and `__file__` are what they were, from wherever the program is."""
    shop.add(
        {
            "_table.py": "NAME = 'page'\n",
            "3.py": "from pathlib import Path\nfrom _table import NAME\n"
            "assert Path(__file__).with_name('_table.py').exists()\n"
            "def apply(): return f'CREATE TABLE {NAME} (id)'\n"
            "def undo(): return f'DROP TABLE {NAME}'\n",
        }
    )
    os.remove("migrations/3.sql")
    os.remove("migrations/3.undo.sql")
    shop.succeed("apply")
    with _runner() as runner:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert runner.rollback_migrations().undone == ("3",)
        assert runner.apply_migrations().applied == ("3",)
