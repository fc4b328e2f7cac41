"""Configuration: the only room that reads its file or the environment.

`FluxConfig` is what every other room gets: frozen, complete, and checked.
"""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from flux import address, toml
from flux.exceptions import InvalidConfigurationError, Location, Problem
from flux.migration import Late, Missing, Order
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONFIG_FILE = "flux.toml"
SCHEMA_FILE = "schema.txt"
PYPROJECT_FILE = "pyproject.toml"
DATABASE_URL_VARIABLE = "FLUX_DATABASE_URL"
SHADOW_URL_VARIABLE = "FLUX_SHADOW_URL"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
ORDERS = ("text", "natural")
MISSING = ("refuse", "allow-newer")
LATE = ("refuse", "allow", "prove")

TypeOrTypes = type | tuple[type, ...]

# Patterns are compiled where they are needed.
_VARIABLE = r"\$(?:\$|\{([^}]*)(\}?))"
_SENSITIVE = r"(?i)://|ur[il]|dsn|pass|pwd|secret|token|key|auth"


class FluxConfig(Record):
    """The settings of a project; `docs/configuration.md` describes each.

    `migration_directory` counts from the working directory; `from_file` has already joined it
    to the place of the file. `lock_wait` and `connect_wait` are in seconds. `path` says where the
    settings stand, and `directory` is the project's, where it is not that of `path`.
    """

    backend: str = "sqlite"
    migration_directory: str = "migrations"
    log_level: str = "INFO"
    apply_repeatable_on_undo: bool = True
    post_apply_on_failure: bool = False
    order: Order = "text"
    missing: Missing = "refuse"
    late: Late = "refuse"
    lock_wait: float = 300
    connect_wait: float = 0
    database_url: str | None = None
    shadow_url: str | None = None
    throw_away_server: bool = False
    require_undo: bool = False
    ignore: tuple[str, ...] = ()
    schema_file: str = SCHEMA_FILE
    backend_config: Mapping[str, Any] = {}
    path: str | None = None
    directory: str | None = None

    def __repr__(self) -> str:
        """Every setting, the database's address without its password."""
        shown = self._asdict()
        for name in ("database_url", "shadow_url"):
            if shown[name] is not None:
                shown[name] = address.redact(shown[name])
        # A backend's own settings may hold secrets that only the backend knows as such.
        shown["backend_config"] = sorted(self.backend_config)
        return f"FluxConfig({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> FluxConfig:
        """Read `flux.toml`, or the `[tool.flux]` of a `pyproject.toml`. Read-only.

        Raises `InvalidConfigurationError`, which names the file and the key.
        """
        path = os.fspath(path)
        if address.scheme(path) is not None or address.redact(path) != path:
            raise InvalidConfigurationError(
                f"{address.redact(path)} is an address, and not the path of a configuration file",
                hint="a file of that name is ./NAME",
            )
        document = _read_toml(path)
        if os.path.basename(path) == PYPROJECT_FILE:
            sections = ("[tool.flux]", "[tool.flux.backend_config]")
            if not _has_section(document):
                raise InvalidConfigurationError(
                    f"there is no {sections[0]} section", location=Location(path)
                )
            general = document["tool"]["flux"]
            backend_config = general.pop("backend_config", {}) if isinstance(general, dict) else {}
        else:
            sections = ("[flux]", "[backend]")
            _refuse_unknown(document, ("flux", "backend"), path, "section", "the file")
            general, backend_config = document.get("flux", {}), document.get("backend", {})
        for section, value in zip(sections, (general, backend_config), strict=True):
            if not isinstance(value, dict):
                raise InvalidConfigurationError(
                    f"{section} must be a section",
                    location=Location(path),
                    hint="a setting such as backend = … stands below the line [flux]",
                )
        return cls._from_sections(
            general, backend_config, path, sections[0], directory=os.path.dirname(path)
        )

    @classmethod
    def from_mapping(
        cls,
        settings: Mapping[str, Any],
        *,
        source: str,
        directory: str,
        prefix: str = "",
        others: tuple[str, ...] = (),
    ) -> FluxConfig:
        """The settings of a program, named as in `[flux]`; `backend_config` has the backend's.

        `source` says where they stand ("FLUX in the settings"); relative paths count from
        `directory`. An address is taken as it is, since a program reads the environment itself;
        without a `backend`, it says which. With a `prefix` such as FLUX_, errors name the keys as
        FLUX_LOCK_WAIT; `others` are the keys that the program has beside these.

        Raises `InvalidConfigurationError`, which names the source and the key.
        """
        general = {
            key: os.fspath(value) if isinstance(value, os.PathLike) else value
            for key, value in settings.items()
            if key not in others
        }
        backend_config = general.pop("backend_config", {})

        def spell(key: str) -> str:
            return prefix + key.upper() if prefix else key

        if not isinstance(backend_config, Mapping):
            raise InvalidConfigurationError(
                f"{spell('backend_config')} in {source} must be a mapping of the backend's "
                "settings",
            )
        config = cls._from_sections(
            {"backend": "sqlite", **general},
            backend_config,
            source,
            source,
            directory=directory,
            spell=spell,
            others=(*others, "backend_config"),
        )
        config = config._replace(
            database_url=_escaped(config.database_url), shadow_url=_escaped(config.shadow_url)
        )
        if "backend" not in general and config.names_database:
            config = config._replace(backend=address.backend_of(config.find_url()))
        return config._replace(directory=directory)

    @classmethod
    def _from_sections(
        cls,
        general: Mapping[str, Any],
        backend_config: Mapping[str, Any],
        path: str,
        section: str,
        *,
        directory: str,
        spell: Callable[[str], str] = str,
        others: tuple[str, ...] = (),
    ) -> FluxConfig:
        known = tuple(spell(key) for key in (*_CHECKS, *others))
        _refuse_unknown([spell(key) for key in general], known, path, "key", section)
        if "backend" not in general:
            raise InvalidConfigurationError(
                f'{section} needs a backend, for instance backend = "sqlite"',
                location=Location(path),
            )
        for key, value in general.items():
            check, wanted = _CHECKS[key]
            if not check(value):
                given = repr(value)
                shown = "" if re.search(_SENSITIVE, key + given) else f", not {given}"
                raise InvalidConfigurationError(
                    f"{spell(key)} in {section} must be {wanted}{shown}", location=Location(path)
                )
        settings = dict(general)
        for name, default in (("migration_directory", "migrations"), ("schema_file", SCHEMA_FILE)):
            settings[name] = os.path.join(directory, settings.get(name, default))
        settings["ignore"] = tuple(settings.get("ignore", ()))
        return cls(**settings, backend_config=backend_config, path=path)

    @property
    def names_database(self) -> bool:
        """Whether the environment or the settings have an address."""
        return DATABASE_URL_VARIABLE in os.environ or self.database_url is not None

    @property
    def project_directory(self) -> str:
        """The program's own, else that of the configuration file, else the working directory."""
        return self.directory or os.path.dirname(self.path or "") or os.curdir

    def source_of_url(self, given: str | None = None) -> str | None:
        """Where `resolve_url` takes the address from, in words; None for one that was given."""
        if given is not None:
            return None
        if DATABASE_URL_VARIABLE in os.environ:
            return f"the environment variable {DATABASE_URL_VARIABLE}"
        return f"database_url in {self.path or 'the configuration'}"

    def resolve_url(self, given: str | None = None) -> str:
        """The database's address: the one given, else the environment's, else the file's.

        Relative paths in the file's address count from the file.

        Raises `InvalidConfigurationError` when there is none, a variable is not set, or the
        address is not one of the backend's.
        """
        url = self.find_url(given)
        if self.backend not in address.FORMS:
            return url
        self._refuse_address_of_another(url, self.source_of_url(given))
        if given is not None or DATABASE_URL_VARIABLE in os.environ:
            return url
        return address.relative_to(url, self.project_directory)

    def find_url(self, given: str | None = None) -> str:
        """The address that `resolve_url` begins with, of whatever database.

        `${NAME}` in the file's address takes the environment variable NAME, `$$` is a dollar
        sign. White space around an address, as files of secrets have it, is dropped.

        Raises `InvalidConfigurationError` when there is none, or a variable is not set.
        """
        if given is not None:
            return _not_empty(given)
        from_environment = _from_environment(DATABASE_URL_VARIABLE)
        if from_environment is not None:
            return from_environment
        if self.database_url is None:
            raise InvalidConfigurationError(
                "no database is named",
                hint="give its address on the command line, in the environment variable "
                f"{DATABASE_URL_VARIABLE}, or as database_url in {self.path or CONFIG_FILE}",
            )
        return self._filled("database_url", self.database_url)

    def resolve_shadow_url(self, given: str | None = None) -> str | None:
        """Where scratch databases are made: the address given, the environment's, or the file's.

        It may be of any database of the server that the user may connect to. None where it is
        said nowhere. It is read as `resolve_url` reads its address.

        Raises `InvalidConfigurationError` when a variable is not set, or the address is not one
        of the backend's.
        """
        if given is not None:
            url, source = _not_empty(given), None
        elif (from_environment := _from_environment(SHADOW_URL_VARIABLE)) is not None:
            url, source = from_environment, f"the environment variable {SHADOW_URL_VARIABLE}"
        elif self.shadow_url is not None:
            url = self._filled("shadow_url", self.shadow_url)
            source = f"shadow_url in {self.path or 'the configuration'}"
        else:
            return None
        if self.backend in address.FORMS:
            self._refuse_address_of_another(url, source)
        return url

    def _filled(self, setting: str, value: str) -> str:
        """An address of the file, with the environment's variables in it."""
        if "$" in value:
            value = re.sub(_VARIABLE, partial(self._variable, setting), value)
        return value.strip()

    def _refuse_address_of_another(self, url: str, source: str | None) -> None:
        meant = address.backend_of(url)
        if meant == self.backend:
            return
        address.check_form(url)
        raise InvalidConfigurationError(
            f'backend = "{self.backend}" in {self.path or "the configuration"}, and the address '
            f"{f'from {source}' if source else 'that was given'} is one of {meant}: "
            f"{address.redact(url)}",
            hint=f"{_backend_for(meant)}, or give an address of {self.backend}: "
            f"{address.FORMS[self.backend]}",
        )

    def _variable(self, setting: str, match: re.Match[str]) -> str:
        name, end = match.groups()
        if name is None:
            return "$"
        if not end:
            raise InvalidConfigurationError(
                f"{setting} has a ${{ without its }}",
                location=Location(self.path or CONFIG_FILE),
                hint="a dollar sign is written $$",
            )
        if not re.fullmatch(r"\w+", name):
            raise InvalidConfigurationError(  # without the text, which may be of a password
                f"{setting} has a ${{…}} that names no environment variable",
                location=Location(self.path or CONFIG_FILE),
                hint="a dollar sign is written $$",
            )
        # With nothing in its place, the address would be one of another database.
        if not (value := os.environ.get(name)):
            state = "which is not set" if value is None else "which is empty"
            raise InvalidConfigurationError(
                f"{setting} needs the environment variable {name!r}, {state}",
                location=Location(self.path or CONFIG_FILE),
            )
        return value


def find_config_file(directory: str = "") -> str:
    """The path of the project's configuration file: `flux.toml`, or a `pyproject.toml`.

    Raises `InvalidConfigurationError` when there is none, or both configure flux.
    """
    own = os.path.join(directory, CONFIG_FILE)
    pyproject = os.path.join(directory, PYPROJECT_FILE)
    has_own = os.path.isfile(own)
    # Cheap before exact: most projects have a pyproject.toml that says nothing of flux.
    has_section = _mentions_flux(pyproject) and _has_section(_read_toml(pyproject))
    if has_own and has_section:
        raise InvalidConfigurationError(
            f"both {own} and [tool.flux] in {pyproject} configure flux",
            hint="keep one of the two",
        )
    if not has_own and not has_section:
        raise InvalidConfigurationError(
            f"there is no {CONFIG_FILE} here ({os.path.abspath(directory or os.curdir)})",
            hint="run `flux init` to write one, or name another file with --config",
        )
    return own if has_own else pyproject


def check_keys(
    settings: Mapping[str, Any], checks: Mapping[str, TypeOrTypes], path: str | None
) -> None:
    """Check a backend's settings: known keys, right types. For backends' `from_config`.

    Raises `InvalidConfigurationError` naming the key and the nearest valid one.
    """
    where = path or CONFIG_FILE
    _refuse_unknown(settings, tuple(checks), where, "key", "[backend]")
    for key, value in settings.items():
        wanted = checks[key]
        # To Python, true is a whole number.
        types = wanted if isinstance(wanted, tuple) else (wanted,)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise InvalidConfigurationError(
                f"{key} in [backend] must be {_type_name(wanted)}", location=Location(where)
            )


def _escaped(value: str | None) -> str | None:
    """An address that is to be taken as it is, as the file would write it."""
    return None if value is None else value.replace("$", "$$")


def _not_empty(given: str) -> str:
    if not given.strip():
        raise InvalidConfigurationError("the database's address is empty")
    return given.strip()


def _from_environment(variable: str) -> str | None:
    value = os.environ.get(variable)
    if value is not None and not value.strip():
        # Not the file's database, which may be another one than was meant.
        raise InvalidConfigurationError(
            f"the environment variable {variable} is empty",
            hint="give it the database's address, or unset it",
        )
    return value and value.strip()


def _backend_for(name: str) -> str:
    """What to do for an address of that backend, which may be of nobody's."""
    if name in address.FORMS:
        return f'set backend = "{name}"'
    return f'install a package that brings a backend for {name}, and set backend = "{name}"'


def nearest(word: str, candidates: tuple[str, ...] | list[str]) -> str | None:
    """The candidate most like a mistyped word, if any is like it."""
    from difflib import get_close_matches

    found = get_close_matches(word, candidates, n=1)
    return found[0] if found else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _is_backend_name(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return all(letter.isalnum() or letter in "_.-" for letter in value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value))


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9


def _type_name(wanted: TypeOrTypes) -> str:
    if isinstance(wanted, tuple):
        return " or ".join(_type_name(one) for one in wanted)
    return _TYPE_NAMES.get(wanted, wanted.__name__)


_TYPE_NAMES: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}

_CHECKS = {
    "backend": (_is_backend_name, "the name of a backend"),
    "migration_directory": (_is_text, "the path of a directory"),
    "log_level": (LOG_LEVELS.__contains__, f"one of {', '.join(LOG_LEVELS)}"),
    "apply_repeatable_on_undo": (_is_bool, "true or false"),
    "post_apply_on_failure": (_is_bool, "true or false"),
    "order": (ORDERS.__contains__, 'one of "text", "natural"'),
    "missing": (MISSING.__contains__, 'one of "refuse", "allow-newer"'),
    "late": (LATE.__contains__, 'one of "refuse", "allow", "prove"'),
    "lock_wait": (_is_seconds, "a number of seconds, 0 or more"),
    "connect_wait": (_is_seconds, "a number of seconds, 0 or more"),
    "database_url": (_is_text, "the address of a database"),
    "shadow_url": (_is_text, "the address of a database"),
    "throw_away_server": (_is_bool, "true or false"),
    "require_undo": (_is_bool, "true or false"),
    "ignore": (_is_texts, "a list of texts"),
    "schema_file": (_is_text, "the path of a file"),
}


def _refuse_unknown(
    given: Iterable[str], known: tuple[str, ...], path: str, noun: str, where: str
) -> None:
    unknown = [key for key in given if key not in known]
    if not unknown:
        return
    problems = []
    for key in unknown:
        near = nearest(key, known)
        hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(known)}"
        problems.append(
            Problem("unknown-key", (), f"unknown {noun} {key!r} in {where}", hint, Location(path))
        )
    raise InvalidConfigurationError.of(
        tuple(problems), f"{len(problems)} unknown {noun}s in {where}"
    )


def _has_section(pyproject: dict[str, Any]) -> bool:
    tools = pyproject.get("tool")
    return isinstance(tools, dict) and "flux" in tools


def _mentions_flux(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "flux" in file.read()
    except OSError:
        return False


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise InvalidConfigurationError(
            f"cannot be read: {error.strerror}", location=Location(path)
        ) from error
    try:
        return toml.loads(_decoded(content))
    except UnicodeDecodeError as error:
        raise InvalidConfigurationError("is not UTF-8", location=Location(path)) from error
    except (ValueError, RecursionError) as error:
        # "Expected '=' after a key in a key/value pair (at line 3, column 5)"
        message, _, place = str(error).partition(" (at ")
        numbers = [int(number) for number in re.findall(r"\d+", place)]
        line, column = numbers if len(numbers) == 2 else (None, None)
        source = None
        if line is not None:
            source = _decoded(content).split("\n")[line - 1]
            if re.search(_SENSITIVE, source):
                source = None
        raise InvalidConfigurationError(
            f"is not valid TOML: {message}",
            location=Location(path, line, column, source),
        ) from error


def _decoded(content: bytes) -> str:
    """The text of a file; the codec that drops a byte order mark is one more import."""
    return content.removeprefix(BOM_UTF8).decode()
