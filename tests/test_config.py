"""Configuration: what a file says and may not say, and where the address comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux.config import FluxConfig, check_keys, find_config_file
from flux.exceptions import InvalidConfigurationError

Write = Callable[[str | bytes], Path]
_VARIABLE = "FLUX_DATABASE_URL"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `flux.toml` into the working directory, which is the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(_VARIABLE, raising=False)

    def write(text: str | bytes, name: str = "flux.toml") -> Path:
        path = Path(name)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def _error(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidConfigurationError) as caught:
        call()
    return str(caught.value)


# What a file says ---------------------------------------------------------------------------


def test_a_file_that_says_little_gets_safe_defaults(write: Write) -> None:
    path = write('[flux]\nbackend = "sqlite"\n')
    assert FluxConfig.from_file(path) == FluxConfig(
        backend="sqlite",
        migration_directory="migrations",
        log_level="INFO",
        apply_repeatable_on_undo=True,
        post_apply_on_failure=False,
        order="text",
        lock_wait=300,
        database_url=None,
        backend_config={},
        path="flux.toml",
    )


def test_a_file_that_says_everything(write: Write) -> None:
    path = write(
        """\
        [flux]
        backend = "postgres"
        migration_directory = "db/migrations"
        log_level = "DEBUG"
        apply_repeatable_on_undo = false
        post_apply_on_failure = true
        order = "natural"
        missing = "allow-newer"
        late = "prove"
        lock_wait = 0.5
        connect_wait = 30
        database_url = "postgresql://h/db"

        [backend]
        migrations_schema = "public"
        migrations_lock_id = 3589
        """
    )
    assert FluxConfig.from_file(path) == FluxConfig(
        backend="postgres",
        migration_directory="db/migrations",
        log_level="DEBUG",
        apply_repeatable_on_undo=False,
        post_apply_on_failure=True,
        order="natural",
        missing="allow-newer",
        late="prove",
        lock_wait=0.5,
        connect_wait=30,
        database_url="postgresql://h/db",
        backend_config={"migrations_schema": "public", "migrations_lock_id": 3589},
        path="flux.toml",
    )


def test_pyproject_says_the_same_in_sections_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[tool.flux]\nbackend = "postgres"\n[tool.flux.backend_config]\nmigrations_schema = "app"\n'
    )
    assert FluxConfig.from_file(path) == FluxConfig(
        backend="postgres",
        migration_directory=str(tmp_path / "migrations"),
        schema_file=str(tmp_path / "schema.txt"),
        backend_config={"migrations_schema": "app"},
        path=str(path),
    )


def test_windows_editors_may_have_written_it(write: Write) -> None:
    path = write(b'\xef\xbb\xbf[flux]\r\nbackend = "sqlite"\r\norder = "natural"\r\n')
    assert FluxConfig.from_file(path).order == "natural"


@pytest.mark.parametrize(
    ("said", "directory"),
    [
        pytest.param("migrations", os.path.join("project", "migrations"), id="relative"),
        pytest.param("/srv/migrations", "/srv/migrations", id="absolute"),
    ],
)
def test_the_migration_directory_counts_from_the_file(
    write: Write, said: str, directory: str
) -> None:
    os.mkdir("project")
    Path("project/flux.toml").write_text(
        f'[flux]\nbackend = "sqlite"\nmigration_directory = "{said}"\n'
    )
    config = FluxConfig.from_file("project/flux.toml")
    assert config.migration_directory == directory
    assert config.project_directory == "project"


# What it may not say ------------------------------------------------------------------------

_BELOW = "hint: a setting such as backend = … stands below the line [flux]"
_KEYS = (
    "backend, migration_directory, log_level, apply_repeatable_on_undo, post_apply_on_failure, "
    "order, missing, late, lock_wait, connect_wait, database_url, "
    "shadow_url, throw_away_server, require_undo, ignore, schema_file"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "",
            'flux.toml: [flux] needs a backend, for instance backend = "sqlite"',
            id="an empty file",
        ),
        pytest.param(
            '[fluks]\nbackend = "sqlite"',
            "flux.toml: unknown section 'fluks' in the file\nhint: did you mean 'flux'?",
            id="a mistyped section",
        ),
        pytest.param(
            'database_url = "sqlite:///s3kr1t"',
            "flux.toml: unknown section 'database_url' in the file\nhint: there are: flux, backend",
            id="a key outside of a section",
        ),
        pytest.param(
            '[flux]\nbackend = "sqlite"\nlock_wate = 3',
            "flux.toml: unknown key 'lock_wate' in [flux]\nhint: did you mean 'lock_wait'?",
            id="a mistyped key",
        ),
        pytest.param(
            '[flux]\nbackend = "sqlite"\nlock_wate = 3\nlog_levl = 3',
            "2 unknown keys in [flux]\n"
            "- flux.toml: unknown key 'lock_wate' in [flux]\n"
            "  hint: did you mean 'lock_wait'?\n"
            "- flux.toml: unknown key 'log_levl' in [flux]\n"
            "  hint: did you mean 'log_level'?",
            id="all mistyped keys",
        ),
        pytest.param(
            '[flux]\nbackend = "sqlite"\nzzz = 3',
            f"flux.toml: unknown key 'zzz' in [flux]\nhint: there are: {_KEYS}",
            id="an unknown key",
        ),
        pytest.param(
            "flux = 3",
            "flux.toml: [flux] must be a section\n" + _BELOW,
            id="a number for a section",
        ),
        pytest.param(
            '[[flux]]\nbackend = "sqlite"',
            "flux.toml: [flux] must be a section\n" + _BELOW,
            id="a list of sections",
        ),
        pytest.param(
            'backend = "sqlite"\n[flux]\nbackend = "sqlite"',
            "flux.toml: [backend] must be a section\n" + _BELOW,
            id="the backend in the wrong place",
        ),
    ],
)
def test_sections_and_keys(write: Write, text: str, message: str) -> None:
    path = write(text)
    assert _error(lambda: FluxConfig.from_file(path)) == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("backend = 3", "backend in [flux] must be the name of a backend, not 3"),
        pytest.param('backend = ""', "backend in [flux] must be the name of a backend, not ''"),
        pytest.param(
            'backend = "postgresql://u:s3kr1t@h/db"',
            "backend in [flux] must be the name of a backend",
        ),
        pytest.param(
            'migration_directory = ""',
            "migration_directory in [flux] must be the path of a directory, not ''",
        ),
        pytest.param(
            'migration_directory = "a\\u0000b"',
            "migration_directory in [flux] must be the path of a directory, not 'a\\x00b'",
        ),
        pytest.param(
            'migration_directory = ["a", "b"]',
            "migration_directory in [flux] must be the path of a directory, not ['a', 'b']",
        ),
        pytest.param(
            'log_level = "info"',
            "log_level in [flux] must be one of DEBUG, INFO, WARNING, ERROR, not 'info'",
        ),
        pytest.param(
            "log_level = {}",
            "log_level in [flux] must be one of DEBUG, INFO, WARNING, ERROR, not {}",
        ),
        pytest.param(
            "apply_repeatable_on_undo = 1",
            "apply_repeatable_on_undo in [flux] must be true or false, not 1",
        ),
        pytest.param(
            'post_apply_on_failure = "no"',
            "post_apply_on_failure in [flux] must be true or false, not 'no'",
        ),
        pytest.param(
            'order = "numeric"',
            """order in [flux] must be one of "text", "natural", not 'numeric'""",
        ),
        pytest.param(
            "late = true",
            'late in [flux] must be one of "refuse", "allow", "prove", not True',
        ),
        *(
            pytest.param(
                f"lock_wait = {value}",
                f"lock_wait in [flux] must be a number of seconds, 0 or more, not {shown}",
            )
            for value, shown in [
                ("-1", "-1"),
                ("nan", "nan"),
                ("inf", "inf"),
                ("true", "True"),
                ('"3"', "'3'"),
                ("1" + "0" * 400, "1" + "0" * 400),
                ("2024-04-22", "datetime.date(2024, 4, 22)"),
            ]
        ),
        pytest.param(
            "database_url = 3", "database_url in [flux] must be the address of a database"
        ),
        pytest.param(
            'database_url = ["postgresql://u:s3kr1t@h/db"]',
            "database_url in [flux] must be the address of a database",
        ),
        pytest.param(
            'database_url = "x\\u0000s3kr1t"',
            "database_url in [flux] must be the address of a database",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_values(write: Write, line: str, message: str) -> None:
    """Each is refused where the file is read, and none shows what may be a password."""
    path = write(f"[flux]\n{line}\n" + ("" if "backend" in line else 'backend = "sqlite"\n'))
    assert _error(lambda: FluxConfig.from_file(path)) == f"flux.toml: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            '[flux]\nbackend "sqlite"\n',
            # Releases of the parser differ in quotation marks, and below in a space.
            r"flux\.toml:2:9: is not valid TOML: Expected .=. after a key in a key/value pair\n"
            r'    2 \| backend "sqlite"\n      \|         \^',
            id="with the line",
        ),
        pytest.param(
            '[flux]\ndatabase_url = "postgresql://u:s3kr1t@h/db\n',
            r"flux\.toml:2:\d+: is not valid TOML: [^:\n]+",
            id="without the line of an address",
        ),
        pytest.param(
            '[flux]\nDSN = "host=h s3kr1t\n',
            r"flux\.toml:2:\d+: is not valid TOML: [^:\n]+",
            id="whatever it is called",
        ),
        pytest.param(
            '[backend]\nauth_token = "s3kr1t\n',
            r"flux\.toml:2:\d+: is not valid TOML: [^:\n]+",
            id="nor that of a token",
        ),
        pytest.param("[flux", r"flux\.toml.*: is not valid TOML: .*", id="at the end"),
        pytest.param(
            f"[flux]\nlock_wait = {'1' * 5000}\n",
            r"flux\.toml: is not valid TOML: Exceeds the limit .*",
            id="a number that Python does not read",
        ),
        pytest.param(
            f"x = {'[' * 5000}", r"flux\.toml.*: is not valid TOML: .*", id="nested too deeply"
        ),
        pytest.param(b"[flux]\nbackend = '\xff'\n", r"flux\.toml: is not UTF-8", id="not UTF-8"),
        pytest.param(
            "[flux]\nbackend = 'a'\n[flux]\n",
            r"flux\.toml:3:6: is not valid TOML: Can ?not declare \('flux',\) twice\n"
            r"    3 \| \[flux\]\n      \|      \^",
            id="twice",
        ),
    ],
)
def test_what_is_not_toml(write: Write, text: str | bytes, message: str) -> None:
    path = write(text)
    error = _error(lambda: FluxConfig.from_file(path))
    assert re.fullmatch(message, error), error
    assert "s3kr1t" not in error


def test_a_file_that_cannot_be_read(write: Write) -> None:
    os.mkdir("folder.toml")
    assert _error(lambda: FluxConfig.from_file("none.toml")) == (
        "none.toml: cannot be read: No such file or directory"
    )
    assert _error(lambda: FluxConfig.from_file("folder.toml")).startswith(
        "folder.toml: cannot be read: "
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[tool.other]", "there is no [tool.flux] section", id="no section"),
        pytest.param("tool = 3", "there is no [tool.flux] section", id="tool is a number"),
        pytest.param(
            "[tool]\nflux = 3", "[tool.flux] must be a section\n" + _BELOW, id="flux is a number"
        ),
        pytest.param(
            '[tool.flux]\nbackend = "sqlite"\nbackend_config = 3',
            "[tool.flux.backend_config] must be a section\n" + _BELOW,
            id="backend_config is a number",
        ),
        pytest.param(
            "[tool.flux]\nlock_wait = 3",
            '[tool.flux] needs a backend, for instance backend = "sqlite"',
            id="no backend",
        ),
    ],
)
def test_sections_of_pyproject(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(text)
    assert _error(lambda: FluxConfig.from_file(path)) == f"{path}: {message}"


# Which file ---------------------------------------------------------------------------------

_FLUX = '[flux]\nbackend = "sqlite"\n'
_TOOL = '[tool.flux]\nbackend = "sqlite"\n'


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param({"flux.toml": _FLUX}, "flux.toml", id="flux.toml"),
        pytest.param({"pyproject.toml": _TOOL}, "pyproject.toml", id="pyproject.toml"),
        pytest.param(
            {"flux.toml": _FLUX, "pyproject.toml": '[project]\nname = "flux"'},
            "flux.toml",
            id="another pyproject.toml",
        ),
        pytest.param(
            {"flux.toml": _FLUX, "pyproject.toml": 'tool = "flux"'},
            "flux.toml",
            id="an odd pyproject.toml",
        ),
    ],
)
def test_find_config_file(write: Write, files: dict[str, str], found: str) -> None:
    for name, text in files.items():
        Path(name).write_text(text)
    assert find_config_file() == found


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param(
            {},
            "there is no flux.toml here ({here})\n"
            "hint: run `flux init` to write one, or name another file with --config",
            id="none",
        ),
        pytest.param(
            {"flux.toml": _FLUX, "pyproject.toml": _TOOL},
            "both flux.toml and [tool.flux] in pyproject.toml configure flux\n"
            "hint: keep one of the two",
            id="both",
        ),
    ],
)
def test_no_file_to_go_by(write: Write, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        Path(name).write_text(text)
    assert _error(find_config_file) == message.format(here=os.getcwd())


# The address --------------------------------------------------------------------------------

_IN_FILE = "sqlite:///in-file.db"


@pytest.mark.parametrize(
    ("given", "environment", "in_file", "url"),
    [
        pytest.param("g.db", "e.db", _IN_FILE, "g.db", id="given first"),
        pytest.param(None, "e.db", _IN_FILE, "e.db", id="then the environment"),
        pytest.param(None, None, _IN_FILE, os.path.join("dir", "in-file.db"), id="then the file"),
        pytest.param(None, None, "${DB}", os.path.join("dir", "v.db"), id="a variable"),
        pytest.param(None, None, "/a/${DB}${DB}", "/a/v.dbv.db", id="two variables"),
        pytest.param(None, None, "/a/$${DB}$", "/a/${DB}$", id="dollar signs"),
    ],
)
def test_resolve_url(
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    environment: str | None,
    in_file: str,
    url: str,
) -> None:
    """A relative path in the file counts from the file, and elsewhere from where flux runs."""
    monkeypatch.delenv(_VARIABLE, raising=False)
    if environment is not None:
        monkeypatch.setenv(_VARIABLE, environment)
    monkeypatch.setenv("DB", "v.db")
    config = FluxConfig(database_url=in_file, path=os.path.join("dir", "flux.toml"))
    assert config.resolve_url(given) == url


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://u:${PW}@h/db", id="PostgreSQL"),
        pytest.param("mydb", id="a plugin's own form"),
    ],
)
def test_another_backends_address_is_left_alone(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.delenv(_VARIABLE, raising=False)
    monkeypatch.setenv("PW", "x")
    config = FluxConfig(backend="cooldb", database_url=url, path=os.path.join("dir", "flux.toml"))
    assert config.resolve_url() == url.replace("${PW}", "x")


@pytest.mark.parametrize(
    ("given", "in_file", "message"),
    [
        pytest.param(
            None,
            None,
            "no database is named\nhint: give its address on the command line, in the environment "
            "variable FLUX_DATABASE_URL, or as database_url in flux.toml",
            id="none",
        ),
        pytest.param("", _IN_FILE, "the database's address is empty", id="an empty argument"),
        pytest.param(" ", _IN_FILE, "the database's address is empty", id="a blank argument"),
        pytest.param(
            None,
            "postgresql://u:${NOT_SET}@h/db",
            "flux.toml: database_url needs the environment variable 'NOT_SET', which is not set",
            id="a variable that is not set",
        ),
        pytest.param(
            None,
            "sqlite:///${EMPTY}",
            "flux.toml: database_url needs the environment variable 'EMPTY', which is empty",
            id="a variable that is empty",
        ),
        pytest.param(
            None,
            "postgresql://u:${s3kr1t@h/db",
            "flux.toml: database_url has a ${ without its }\nhint: a dollar sign is written $$",
            id="a brace that is not closed",
        ),
    ],
)
def test_no_address_to_go_by(
    monkeypatch: pytest.MonkeyPatch, given: str | None, in_file: str | None, message: str
) -> None:
    """With a shell's empty variable in its place, an address would be that of another database."""
    monkeypatch.delenv(_VARIABLE, raising=False)
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    config = FluxConfig(database_url=in_file)
    assert _error(lambda: config.resolve_url(given)) == message


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_is_refused(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    """The file's address, in its place, may be that of another database than was meant."""
    monkeypatch.setenv(_VARIABLE, empty)
    assert _error(FluxConfig(database_url="in-file.db").resolve_url) == (
        "the environment variable FLUX_DATABASE_URL is empty\n"
        "hint: give it the database's address, or unset it"
    )


def test_repr_shows_no_secret() -> None:
    config = FluxConfig(
        database_url="postgresql://u:s3kr1t@h/db",
        shadow_url="postgresql://u:s3kr1t@h/other",
        backend_config={"token": "s3kr1t"},
    )
    assert repr(config) == (
        "FluxConfig(backend='sqlite', migration_directory='migrations', log_level='INFO', "
        "apply_repeatable_on_undo=True, post_apply_on_failure=False, order='text', "
        "missing='refuse', late='refuse', lock_wait=300, connect_wait=0, "
        "database_url='postgresql://u:***@h/db', shadow_url='postgresql://u:***@h/other', "
        "throw_away_server=False, require_undo=False, ignore=(), schema_file='schema.txt', "
        "backend_config=['token'], path=None, "
        "directory=None)"
    )
    assert "s3kr1t" not in f"{config} {[config]}"


# A backend's settings -----------------------------------------------------------------------

_CHECKS: dict[str, type | tuple[type, ...]] = {
    "table": str,
    "lock_id": int,
    "wait": (int, float),
    "fast": bool,
    "either": (bool, str),
}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="none"),
        pytest.param({"table": "x", "lock_id": 3, "wait": 0.5, "fast": True}, id="all"),
        pytest.param({"wait": 1, "either": True}, id="one of two types"),
        pytest.param({"either": "x"}, id="the other"),
    ],
)
def test_settings_of_a_backend(settings: dict[str, Any]) -> None:
    check_keys(settings, _CHECKS, "flux.toml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"tabel": "x"},
            "flux.toml: unknown key 'tabel' in [backend]\nhint: did you mean 'table'?",
            id="unknown",
        ),
        pytest.param({"table": 3}, "flux.toml: table in [backend] must be a text", id="text"),
        pytest.param(
            {"lock_id": "s3kr1t"},
            "flux.toml: lock_id in [backend] must be a whole number",
            id="int",
        ),
        pytest.param(
            {"lock_id": True}, "flux.toml: lock_id in [backend] must be a whole number", id="bool"
        ),
        pytest.param(
            {"wait": True},
            "flux.toml: wait in [backend] must be a whole number or a number",
            id="bool for one of two",
        ),
        pytest.param({"fast": 1}, "flux.toml: fast in [backend] must be true or false", id="int 1"),
    ],
)
def test_wrong_settings_of_a_backend(settings: dict[str, Any], message: str) -> None:
    """Values are not shown: only the backend knows which of its settings are secret."""
    assert _error(lambda: check_keys(settings, _CHECKS, None)) == message


# The settings of a program ------------------------------------------------------------------


def test_a_program_gives_its_settings(tmp_path: Path) -> None:
    """Named as in the file; a path object is a path, and a relative one counts from the program."""
    settings = {
        "backend": "postgres",
        "migration_directory": Path("db") / "migrations",
        "backend_config": {"migrations_schema": "flux"},
    }
    config = FluxConfig.from_mapping(settings, source="FLUX", directory=str(tmp_path))
    assert config.migration_directory == str(tmp_path / "db" / "migrations")
    assert config.project_directory == str(tmp_path)
    assert config.backend_config == {"migrations_schema": "flux"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param(
            {"backend": "sqlite", "migration_dir": "m"},
            "FLUX: unknown key 'migration_dir' in FLUX\nhint: did you mean 'migration_directory'?",
            id="unknown",
        ),
        pytest.param(
            {"backend": "sqlite", "lock_wait": "5"},
            "FLUX: lock_wait in FLUX must be a number of seconds, 0 or more, not '5'",
            id="type",
        ),
        pytest.param(
            {"backend": "sqlite", "backend_config": "x"},
            "backend_config in FLUX must be a mapping of the backend's settings",
            id="backend_config",
        ),
        pytest.param(
            {"nothing_like_it": 1},
            "FLUX: unknown key 'nothing_like_it' in FLUX\n"
            "hint: there are: backend, migration_directory, log_level, apply_repeatable_on_undo, "
            "post_apply_on_failure, order, missing, late, lock_wait, connect_wait, database_url, "
            "shadow_url, throw_away_server, require_undo, ignore, schema_file, backend_config",
            id="unlike any",
        ),
    ],
)
def test_wrong_settings_of_a_program_name_their_source(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConfigurationError) as caught:
        FluxConfig.from_mapping(settings, source="FLUX", directory="")
    assert str(caught.value) == message


def test_a_program_may_leave_the_backend_to_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the environment comes first, as in `resolve_url`; with none, SQLite stands in."""
    monkeypatch.delenv("FLUX_DATABASE_URL", raising=False)

    def backend(**settings: str) -> str:
        return FluxConfig.from_mapping(settings, source="FLUX", directory="").backend

    assert backend() == "sqlite"
    assert backend(database_url="postgresql://localhost/a") == "postgres"
    assert backend(database_url="postgresql://localhost/a", backend="other") == "other"
    monkeypatch.setenv("FLUX_DATABASE_URL", "a.db")
    assert backend(database_url="postgresql://localhost/a") == "sqlite"


def test_the_address_of_a_program_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dollar signs of its password are no variables, of which a program reads its own."""
    monkeypatch.delenv("FLUX_DATABASE_URL", raising=False)
    url = "postgresql://u:$$a${B}$@localhost/a"
    config = FluxConfig.from_mapping({"database_url": url}, source="FLUX", directory="")
    assert config.resolve_url() == url


def test_the_keys_of_a_program_may_have_a_prefix() -> None:
    settings = {"lock_wiat": 5, "own": 1, "owm": 2}
    with pytest.raises(InvalidConfigurationError) as caught:
        FluxConfig.from_mapping(
            settings, source="settings", directory="", prefix="APP_", others=("own",)
        )
    assert [(one.message, one.hint) for one in caught.value.problems] == [
        ("unknown key 'APP_LOCK_WIAT' in settings", "did you mean 'APP_LOCK_WAIT'?"),
        ("unknown key 'APP_OWM' in settings", "did you mean 'APP_OWN'?"),
    ]
