"""Database addresses: which backend they mean, and how they may be shown.

An address holds a password as often as not. It is shown only as `redact` gives it, and a
driver's message about it only as `without_secrets` gives it.
"""

from __future__ import annotations

import os
import re
from typing import Final

from flux.exceptions import InvalidConfigurationError

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?=//)")
_NAME_AND_EQUALS: Final = r"([\w-]*(?:password|passwd|pwd|secret|token))(\s*=\s*)"
#: A parameter of a URL, and one of libpq's keyword strings, in which `&` is a letter.
_SECRET_IN_URL: Final = rf"(?i){_NAME_AND_EQUALS}([^&]*)"
_SECRET_KEYWORD: Final = rf"(?is){_NAME_AND_EQUALS}('(?:[^'\\]|\\.)*'?|(?:\\.|\S)*)"
_KEYWORD_STRING: Final = re.compile(
    r"\s*(host|hostaddr|port|dbname|user|password|passfile|service|sslmode|connect_timeout)\s*="
)
_BACKEND_OF_SCHEME: Final = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "file": "sqlite",
}


def scheme(address: str) -> str | None:
    """The part before `://` in lower case, without a driver (`+psycopg2`); None for none."""
    match = _SCHEME.match(address)
    return match[1].lower().partition("+")[0] if match else None


def backend_of(address: str) -> str:
    """The name of the backend that an address is for: a plain path is SQLite's."""
    name = scheme(address)
    if name is not None:
        return _BACKEND_OF_SCHEME.get(name, name)
    return "postgres" if _is_keyword_string(address) else "sqlite"


def sqlite_path(address: str) -> str:
    """The path of a SQLite file, or `:memory:`, from a URL or a plain path.

    `sqlite:///x.db` is relative, `sqlite:////srv/x.db` absolute, as SQLAlchemy has it.
    Raises `InvalidConfigurationError` for an address of another kind.
    """
    name = scheme(address)
    if name is None and not address.startswith("file:") and not _is_keyword_string(address):
        return _checked_path(address.removeprefix("sqlite:"))
    if name not in ("sqlite", "sqlite3"):
        raise InvalidConfigurationError(
            f"{redact(address)} is not the address of a SQLite database",
            hint="a path, or sqlite:///relative/path, or sqlite:////absolute/path",
        )
    rest = address.partition("://")[2]
    if rest in (":memory:", "/:memory:", ""):
        return ":memory:"
    if not rest.startswith("/"):
        raise InvalidConfigurationError(
            f"{redact(address)} names a host, and SQLite has none",
            hint=f"a relative path takes three slashes: sqlite:///{redact(rest)}",
        )
    path = rest[1:]
    if "?" in path:
        raise InvalidConfigurationError(
            f"{redact(address)} has parameters, which flux does not take for SQLite"
        )
    if "%" in path:
        from urllib.parse import unquote

        path = unquote(path)
    return _checked_path(path)


def relative_to(address: str, directory: str) -> str:
    """The address of a SQLite file with its relative path counted from `directory`."""
    if backend_of(address) != "sqlite":
        return address
    path = sqlite_path(address)
    if path == ":memory:":
        return address
    return os.path.join(directory, path) if directory != os.curdir else path


def redact(address: str) -> str:
    """The address as it may be shown: without its password, and with all else readable.

    Where an address does not parse, more is left out rather than less.
    """
    start, rest = _after_scheme(address)
    userinfo, at, host = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if at and colon:
        rest = f"{user}:***@{host}"
    return _secret_parameter(address).sub(r"\1\2***", start + rest)


def without_secrets(message: str, address: str) -> str:
    """A driver's message with every trace of the address's password replaced by `***`."""
    for secret in sorted(_secrets(address), key=len, reverse=True):
        message = message.replace(secret, "***")
    return re.sub(_SECRET_KEYWORD, r"\1\2***", message)


def check_url(address: str) -> None:
    """Refuse a URL that a driver would misread, quoting pieces of the password in its error.

    Raises `InvalidConfigurationError`, which quotes nothing of the address.
    """
    match = _SCHEME.match(address)
    if match is None:
        return
    rest = address[match.end() + 2 :]
    userinfo, at, host = rest.rpartition("@")
    if at and re.search(r"[/?#@\s]", userinfo):
        # An `@` in the parameters only is no user name: `…/db?application_name=a@b`.
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" in authority or "=" not in userinfo.partition("?")[2]:
            raise InvalidConfigurationError(
                "the database's address cannot be read: its user name or password holds a "
                "character that must be percent-encoded",
                hint="write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and a space as %20",
            )
        host = rest
    for part in re.split(r"[/?#]", host, maxsplit=1)[0].split(","):
        _, colon, port = part.rpartition("]")[2].rpartition(":")
        if colon and port and not port.isdigit():
            raise InvalidConfigurationError(
                "the database's address cannot be read: the port is not a number",
                hint="an address reads postgresql://user:password@host:port/database",
            )


def _checked_path(path: str) -> str:
    # Of an empty path, SQLite makes a database that is gone when it is closed.
    if not path.strip() or "\0" in path:
        raise InvalidConfigurationError(
            "the address names no file" if not path.strip() else "the address holds a NUL byte",
            hint="a path, or sqlite:///relative/path, or sqlite:////absolute/path",
        )
    return path


def _is_keyword_string(address: str) -> bool:
    return _KEYWORD_STRING.match(address) is not None


def _after_scheme(address: str) -> tuple[str, str]:
    """The address in two: `scheme://`, and all after it."""
    match = _SCHEME.match(address)
    start = match.end() + 2 if match else 0
    return address[:start], address[start:]


def _secret_parameter(address: str) -> re.Pattern[str]:
    return re.compile(_SECRET_IN_URL if _SCHEME.match(address) else _SECRET_KEYWORD)


def _secrets(address: str) -> set[str]:
    found = {match[3] for match in _secret_parameter(address).finditer(address)}
    # A driver's message may quote what a keyword string holds without its quotes and backslashes.
    found |= {re.sub(r"\\(.)", r"\1", secret.strip("'")) for secret in found}
    userinfo, _, _ = _after_scheme(address)[1].rpartition("@")
    found.add(userinfo.partition(":")[2])
    if any("%" in secret for secret in found):
        from urllib.parse import unquote

        found |= {unquote(secret) for secret in found}
    return {secret for secret in found if secret}
