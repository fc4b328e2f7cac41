"""Late migrations, applied because they were allowed: what runs, in which order, and back again."""

from __future__ import annotations

import json

import pytest

import flux
from tests.project import Project


@pytest.fixture(params=["project", "pg"], ids=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest) -> Project:
    """A project in which 001 and 003 are applied, and the older 002 has been merged since."""
    project: Project = request.getfixturevalue(request.param)
    project.query("CREATE TABLE ran (number INTEGER PRIMARY KEY, what TEXT)")
    project.add(_noting("001", "003"))
    project.succeed("apply")
    project.add(_noting("002"))
    return project


def _noting(*ids: str) -> dict[str, str]:
    """Migrations that note what ran, in a table that counts."""
    insert = "INSERT INTO ran SELECT coalesce(max(number), 0) + 1, '{}' FROM ran;\n"
    up = {f"{id}.sql": insert.format(id) for id in ids}
    return up | {f"{id}.undo.sql": insert.format(f"-{id}") for id in ids}


def _ran(project: Project) -> list[str]:
    return [what for (what,) in project.query("SELECT what FROM ran ORDER BY number")]


@pytest.mark.parametrize("way", ["option", "setting"])
def test_late_ones_are_applied_where_they_are_allowed(shop: Project, way: str) -> None:
    options = ["--allow-late"] if way == "option" else []
    assert "002 is late" in shop.fail("apply", code=4)
    if way == "setting":
        shop.configure('late = "allow"')
    shop.add(_noting("004"))
    assert shop.succeed("plan", *options) == (
        "apply  002  (late: it comes after 003, which is newer)\napply  004\n"
    )
    steps = json.loads(shop.succeed("plan", "--json", *options))["steps"]
    assert [step.get("late_after") for step in steps] == ["003", None]
    assert "late       002\n" in shop.succeed("status", *options)
    assert shop.run("status", "--check", *options).code == 3
    shop.succeed("validate", *options)
    assert shop.succeed("apply", *options).endswith("\n2 migrations applied\n")
    assert _ran(shop) == ["001", "003", "002", "004"]
    assert shop.succeed("status", "--check").endswith("\n4 migrations: 4 applied\n")


def test_the_option_is_for_this_time(shop: Project) -> None:
    shop.succeed("apply", "--allow-late")
    shop.add(_noting("000"))
    assert "000 is late" in shop.fail("apply", code=4)
    assert _ran(shop) == ["001", "003", "002"]


def test_what_was_applied_last_is_undone_first(shop: Project) -> None:
    """Whatever the ids say, over several batches, and also what the history's times say."""
    shop.succeed("apply", "--allow-late")
    shop.add(_noting("004"))
    shop.succeed("apply")
    shop.add(_noting("000", "002a"))
    shop.succeed("apply", "--allow-late")
    [(at,)] = shop.query("SELECT applied_at FROM _flux_migrations WHERE id = '001'")
    shop.query(f"UPDATE _flux_migrations SET applied_at = '{at}'")
    assert _ran(shop) == ["001", "003", "002", "004", "000", "002a"]
    shop.succeed("rollback", "-y")
    shop.succeed("rollback", "--to", "004", "-y")
    shop.succeed("rollback", "2", "-y")
    shop.succeed("rollback", "--all", "-y")
    assert _ran(shop)[6:] == ["-002a", "-000", "-004", "-002", "-003", "-001"]


def test_one_that_was_late_once_is_not_late_for_ever(shop: Project) -> None:
    """What was noted of it goes when it is applied again in its place."""
    shop.succeed("apply", "--allow-late")
    shop.succeed("rollback", "--all", "-y")
    shop.succeed("apply")
    shop.succeed("rollback", "--all", "-y")
    assert _ran(shop)[6:] == ["001", "002", "003", "-003", "-002", "-001"]


def test_one_that_failed_is_late_the_next_time(shop: Project) -> None:
    shop.add({"002.sql": "SELECT nothing_of_this_name;"})
    shop.fail("apply", "--allow-late")
    assert "002 is late" in shop.fail("apply", code=4)
    shop.add(_noting("002"))
    shop.succeed("apply", "--allow-late")
    shop.succeed("rollback", "-y")
    assert _ran(shop) == ["001", "003", "002", "-002"]


def test_one_that_is_half_applied_is_gone_on_with(shop: Project) -> None:
    """Before the other late ones; and without the option, which was given when it was begun."""
    text = _noting("002")["002.sql"]
    shop.add({"002.sql": f"-- flux: no-transaction\n{text}SELECT nothing_of_this_name;\n"})
    shop.fail("apply", "--allow-late")
    shop.add({"002.sql": f"-- flux: no-transaction\n{text}SELECT 1;\n", **_noting("000")})
    assert "000 is late" in shop.fail("resume", code=4)
    assert "002 is half applied" in shop.fail("apply", "--allow-late", "--to", "000", code=1)
    assert shop.succeed("resume", "--allow-late").endswith("\n1 migration applied\n")
    assert _ran(shop) == ["001", "003", "002"]
    shop.succeed("apply", "--allow-late")
    shop.succeed("rollback", "3", "-y")
    assert _ran(shop)[3:] == ["000", "-000", "-002", "-003"]


def test_a_program_may_allow_them(shop: Project) -> None:
    config = flux.FluxConfig.from_file(shop.root / "flux.toml")._replace(late="allow")
    with flux.FluxRunner.from_config(config) as runner:
        assert runner.apply_migrations().applied == ("002",)
        assert [migration.id for migration in runner.migrations_to_rollback(2)] == ["002", "003"]
        assert runner.rollback_migration("003").undone == ("002", "003")


def test_the_note_of_a_late_one_stands_beside_the_history(shop: Project) -> None:
    """As docs/formats.md says: other programs may rely on it."""
    shop.succeed("apply", "--allow-late")
    rows = shop.query("SELECT name, value FROM _flux_migrations_state")
    assert rows == [("late:002", "1:003")]


def test_without_late_ones_nothing_is_noted(project: Project) -> None:
    """And no table is made for it, whatever is allowed."""
    project.configure('late = "allow"')
    project.add({"001.sql": "SELECT 1;"})
    project.succeed("apply")
    tables = project.query("SELECT name FROM sqlite_master WHERE type = 'table'")
    assert tables == [("_flux_migrations",)]
