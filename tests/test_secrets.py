"""No output shows a password, however the address is written and wherever it is given."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

import flux
from flux import FluxConfig, FluxRunner
from flux.cli import main
from tests.flux_process import FluxProcess

# The two halves of the password, between which each address puts something else.
HEAD, TAIL = "s3cr3tQx", "Zx9Vw7Kd"
SEARCHED = 5  # so many letters of it in a row are too many

_PLACE = "127.0.0.1:1"
_SEPARATORS = [" ", "'", '"', "@", "/", "?", "#", "%", "%zz", "%00", ":", "&", "=", "\\", "\0"]
_SEPARATORS += ["\n", ",", "[", "]", "é", "\udcff", "$", "'x=", " x=", "://", "@h/", "/@", "%2F"]

ADDRESSES = [
    *(f"postgresql://u:{HEAD}{between}{TAIL}@{_PLACE}/db" for between in _SEPARATORS),
    *(f"postgresql://u@{_PLACE}/db?password={HEAD}{between}{TAIL}" for between in _SEPARATORS),
    *(f"host=127.0.0.1 port=1 password={HEAD}{between}{TAIL} user=u" for between in _SEPARATORS),
    *(f"host=127.0.0.1 port=1 password='{HEAD}{between}{TAIL}' user=u" for between in _SEPARATORS),
    *(f"sqlite:///u:{HEAD}{between}{TAIL}@{_PLACE}/db" for between in _SEPARATORS),
    *(f"u:{HEAD}{between}{TAIL}@{_PLACE}/db" for between in _SEPARATORS),
    *(f"nobody-knows+it://u:{HEAD}{between}{TAIL}@{_PLACE}/db" for between in _SEPARATORS),
    f"postgresql://u:{quote(HEAD + '@/:' + TAIL, safe='')}@{_PLACE}/db",
    f"postgresql+psycopg2://u:{HEAD}@{_PLACE}/db",
    f"POSTGRES://u:{HEAD}@{_PLACE}/db",
    f"postgresql://u:{HEAD}@{_PLACE}",
    f"postgresql://:{HEAD}@{_PLACE}/db",
    f"postgresql://u:{HEAD}/db",
    f"postgresql://u:{HEAD}",
    f"postgresql://u:{HEAD}@[::1/db",
    f"postgresql://u:{HEAD}@127.0.0.1:nine/db",
    f"postgresql://u:{HEAD}@127.0.0.1:99999/db",
    f"postgresql://u:{HEAD}@127.0.0.1:1,127.0.0.1:x/db",
    f"postgresql://u:{HEAD}@127.0.0.1:1,u:{TAIL}@127.0.0.1:1/db",
    f"postgresql://u:{HEAD}@{_PLACE}/db?nothing={TAIL}",
    f"postgresql://u:{HEAD}@{_PLACE}/db?sslmod=require",
    f"postgresql://u:{HEAD}@{_PLACE}/db?sslmode=nothing",
    f"postgresql://u:{HEAD}@{_PLACE}/db?sslmode=require;password={TAIL}",
    f"postgresql://u:{HEAD}@{_PLACE}/db?application_name=a@b",
    f"postgresql://u:{HEAD}@{_PLACE}/db?sslpassword={TAIL}",
    f"postgresql://u:{HEAD}@{_PLACE}/db?options=-cmy.password%3D{TAIL}",
    f"postgresql://{_PLACE}/db?passw%6Frd={TAIL}",
    f"postgresql://u:{HEAD}@{_PLACE}/db?connect_timeout=never",
    f"postgresql:u:{HEAD}@{_PLACE}/db",
    f"postgresql:/u:{HEAD}@{_PLACE}/db",
    f"postgresql//u:{HEAD}@{_PLACE}/db",
    f"//u:{HEAD}@{_PLACE}/db",
    f" postgresql://u:{HEAD}@{_PLACE}/db \n",
    f"'postgresql://u:{HEAD}@{_PLACE}/db'",
    f"host=127.0.0.1 port=1 password = {HEAD}",
    f"host=127.0.0.1 port=1 password='{HEAD}",
    f"host=127.0.0.1 port=1 password={HEAD} nothing=1",
    f"host=127.0.0.1 port=1 passwort={HEAD}",
    f"password={HEAD}",
    f"PASSWORD={HEAD} port=x",
    f"options='-c a.b={HEAD}' host=127.0.0.1 port=1",
    f"dbname='postgresql://u:{HEAD}@{_PLACE}/db' host=127.0.0.1 port=1",
    f"service=nothing password={HEAD}",
    f"sqlite://u:{HEAD}@{_PLACE}/db",
    f"sqlite:///app.db?key={HEAD}",
    f"sqlite:///no/such/directory/app.db?password={HEAD}",
    f"file:app.db?key={HEAD}",
    f"file:///u:{HEAD}@{_PLACE}/app.db",
    f"mysql://u:{HEAD}@{_PLACE}/db",
    # No addresses, and no paths either.
    f'"host=127.0.0.1 port=1 password={HEAD}"',
    f'{{"username":"u","password":"{HEAD}","host":"127.0.0.1"}}',
    f"\ufeffhost=127.0.0.1 password={HEAD}",
    f"[host=127.0.0.1 password={HEAD}]",
    f'psql "dbname=d password={HEAD}"',
    f"-h 127.0.0.1 password={HEAD}",
    f"host:127.0.0.1 password:{HEAD}",
    f"Data Source=127.0.0.1;Password={HEAD}",
    f"u/{HEAD}@{_PLACE}/db",
]


def assert_hidden(*texts: object) -> None:
    """No text has a piece of the password."""
    pieces = {
        half[at : at + SEARCHED] for half in (HEAD, TAIL) for at in range(len(half) - SEARCHED + 1)
    }
    for text in map(str, texts):
        found = [piece for piece in pieces if piece.lower() in text.lower()]
        assert not found, text


@pytest.fixture(params=["postgres", "sqlite"])
def project(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project of either backend, in which the test works, without a database."""
    directory = tmp_path / "project"
    (directory / "migrations").mkdir(parents=True)
    (directory / "migrations" / "001.sql").write_text("SELECT 1")
    (directory / "flux.toml").write_text(f'[flux]\nbackend = "{request.param}"\n')
    monkeypatch.chdir(directory)
    monkeypatch.delenv("FLUX_DATABASE_URL", raising=False)
    return directory


def _run(*words: str) -> None:
    """Run the command line in this process, whatever it ends with."""
    try:
        main(words)
    except SystemExit:
        pass


@pytest.mark.parametrize("command", [["status"], ["apply", "--json"], ["validate", "--traceback"]])
def test_on_the_command_line(
    project: Path, command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for address in ADDRESSES:
        _run(*command, address)
        assert_hidden(*capfd.readouterr())
    assert not list(project.rglob(f"*{HEAD}*"))


@pytest.mark.parametrize("command", [["plan"], ["new", "a"], ["apply", "--traceback"]])
def test_in_the_environment(
    project: Path,
    command: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for address in ADDRESSES:
        if "\0" in address:
            continue  # the environment cannot hold it
        monkeypatch.setenv("FLUX_DATABASE_URL", address)
        _run(*command)
        assert_hidden(*capfd.readouterr())


@pytest.mark.parametrize("how", ["plain", "variable"])
def test_in_the_file(
    project: Path, how: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = (project / "flux.toml").read_text()
    for address in ADDRESSES:
        if "\udcff" in address or "\0" in address or '"""' in address:
            continue  # TOML and the environment cannot hold it
        text = address.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        if how == "variable":
            monkeypatch.setenv("DB_ADDRESS", address)
            text = "${DB_ADDRESS}"
        (project / "flux.toml").write_text(f'{header}database_url = "{text}"\n', "utf-8")
        _run("status", "--traceback")
        assert_hidden(*capfd.readouterr())
        # A file that is no TOML any more.
        (project / "flux.toml").write_text(f"{header}database_url = {address}\n", "utf-8")
        _run("status", "--traceback")
        assert_hidden(*capfd.readouterr())


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--config", "{}", "status"], id="before the command"),
        pytest.param(["{}", "status"], id="in place of the command"),
        pytest.param(["status", "--config", "{}", "--traceback"], id="config"),
        pytest.param(["status", "x.db", "{}"], id="one too many"),
        pytest.param(["status", "--wait", "{}"], id="seconds"),
        pytest.param(["apply", "--lock-wait={}"], id="seconds, with an equals sign"),
        pytest.param(["apply", "x.db", "{}"], id="number"),
        pytest.param(["init", "{}", "--traceback"], id="backend"),
    ],
)
def test_in_a_wrong_place(
    project: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for address in ADDRESSES:
        if address.strip().lower().startswith(("postgres", "mysql://", "host", "sqlite://")):
            _run(*[word.replace("{}", address) for word in words])
            assert_hidden(*capfd.readouterr())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and all that is behind it, shown or not."""
    if error is not None:
        yield error
        yield from _chain(error.__cause__)
        yield from _chain(error.__context__)


def test_in_a_program(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for address in ADDRESSES:
        config = FluxConfig.from_file("flux.toml")
        given = config._replace(database_url=address.replace("$", "$$"))
        assert_hidden(repr(given), f"{given} {[given]}")
        for run in (
            partial(flux.apply, address, "migrations"),
            partial(flux.apply, address, config=config),
            partial(flux.apply, config=given),
        ):
            try:
                run()
            except Exception as error:
                for one in _chain(error):
                    assert_hidden(one, repr(one), vars(one), one.args)
                assert_hidden("".join(traceback.format_exception(error)))
    assert_hidden(caplog.text)


def test_what_is_made_of_an_address_does_not_show_it(project: Path) -> None:
    if "postgres" not in (project / "flux.toml").read_text():
        return
    address = f"postgresql://u:{HEAD}@{_PLACE}/db"
    runner = FluxRunner.from_file("flux.toml", address)
    assert_hidden(repr(runner), repr(runner.backend), repr(runner.config), str(runner))


_TALKATIVE = """
from flux.backends.sqlite import SQLiteBackend
import sqlite3

class Talkative(SQLiteBackend):
    name = "talkative"

    @classmethod
    def from_config(cls, config, connection_uri):
        backend = cls(":memory:")
        backend.uri = connection_uri
        return backend

    def connection(self):
        try:
            raise ValueError(self.uri)
        except ValueError:
            user, _, host = self.uri.partition("@")
            raise sqlite3.OperationalError(f"cannot parse {self.uri!r}: no {host}, no {user[12:]}")
"""


def test_a_plugin_whose_driver_tells_all(tmp_path: Path, run_flux: FluxProcess) -> None:
    """Another's backend may pass on what its driver says: the address's secrets are taken out."""
    about = tmp_path / "plugins" / "flux_talkative-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: flux-talkative\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[flux.backend]\ntalkative = flux_talkative:Talkative\n"
    )
    (about.parent / "flux_talkative.py").write_text(_TALKATIVE)
    (tmp_path / "flux.toml").write_text('[flux]\nbackend = "talkative"\n')
    (tmp_path / "migrations").mkdir()
    env = {"PYTHONPATH": str(about.parent)}
    for between in ("", "@", "%2F"):
        address = f"talkative://u:{HEAD}{between}{TAIL}@host/db"
        result = run_flux("status", "--traceback", address, env=env)
        assert result.code == 1
        assert "cannot open the database: cannot parse" in result.err
        assert_hidden(result.out, result.err)


def test_the_process_shows_none_either(tmp_path: Path, run_flux: FluxProcess) -> None:
    """As a user runs it, for what the operating system and Python's own handlers may add."""
    (tmp_path / "flux.toml").write_text('[flux]\nbackend = "postgres"\n')
    (tmp_path / "migrations").mkdir()
    for address in ADDRESSES[: len(_SEPARATORS)]:
        if "\0" in address or sys.platform == "win32":
            continue
        result = run_flux("status", address, env={"PYTHONFAULTHANDLER": "1"})
        assert result.code in (1, 2)
        assert_hidden(result.out, result.err)


def test_a_text_that_holds_a_password_makes_no_file(project: Path) -> None:
    """A secret of another tool's, whole, in place of an address."""
    _run("apply", f'{{"username":"u","password":"{HEAD}"}}')
    assert sorted(path.name for path in project.iterdir()) == ["flux.toml", "migrations"]
