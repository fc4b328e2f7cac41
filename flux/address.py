"""Database addresses: which backend they mean, whether they can be read, how they may be shown.

An address holds a password as often as not. It is shown only as `redact` gives it, and a
driver's message about it only as `without_secrets` gives it. What does not parse is refused
here, before a driver sees it, because drivers quote pieces of what they cannot read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from flux.exceptions import InvalidConfigurationError
from flux.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

# Patterns are compiled where they are asked: flux starts in little more time than Python.
_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_WORD: Final = _LETTERS | set("0123456789._-")
_SCHEME: Final = _LETTERS | set("0123456789+.-")
#: Any address but a plain path has one of these.
_TELLING: Final = frozenset(":@=?")
_BACKEND_OF_SCHEME: Final = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "sqlite": "sqlite",
    "sqlite3": "sqlite",
    "file": "sqlite",
}

#: How addresses read, by the backend that they are for.
FORMS: Final = {
    "sqlite": "a path, or sqlite:///relative/path, or sqlite:////absolute/path",
    "postgres": "postgresql://user:password@host:port/database",
}

# The grammar of libpq's URIs (https://www.postgresql.org/docs/current/libpq-connect.html), but for
# what a reader could take in two ways: no `@` in a path, and no white space.
_HOST: Final = r"(?:\[[^\]\s/?#@]*\]|[^\s/?#@:,\[\]]*)(?::\d*)?"
_HOSTS: Final = rf"{_HOST}(?:,{_HOST})*"
_PARAMETER: Final = r"[^\s=&]+=[^\s=&]*"
_URL: Final = (
    r"(?P<start>[A-Za-z][A-Za-z0-9+.-]*://)"
    r"(?:(?P<user>[^\s/?#@:]*)(?::(?P<password>[^\s/?#@]*))?@)?"
    rf"(?P<hosts>{_HOSTS})"
    r"(?P<path>(?:/[^\s?@]*)?)"
    rf"(?:\?(?P<query>(?:{_PARAMETER}(?:&{_PARAMETER})*)?))?"
)
#: Any word, so that a mistyped or a new keyword does not make the name of a SQLite file.
_KEYWORD_STRING: Final = r"\s*\w+\s*="
_PAIR: Final = r"(?s)\s*(?P<name>[^\s=]+)\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|(?!')(?:\\.|[^\s\\])*)"
_UNPRINTABLE: Final = r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]"
_BAD_PERCENT: Final = r"%(?![0-9A-Fa-f]{2})|%00"
#: What the name of a parameter that holds a secret ends in.
_SENSITIVE: Final = r"(?:password|passwd|pwd|secret|token)"
#: What is written of a password in other forms than those of an address: JSON, ODBC, a shell's.
_REVEALING: Final = rf"(?i){_SENSITIVE}[\"']?\s*[=:]"
#: A path that is meant as one.
_SURE_PATH: Final = r"\.{0,2}[\\/]|[A-Za-z]:[\\/]"
_FORGOTTEN_SCHEME: Final = r"(?s)(?![A-Za-z]:[\\/])[^/\\]*:.*@"

#: Parameters that may be shown, and those that may not; of any other not even its name, which may
#: be a piece of a password.
_SHOWN: Final = frozenset(
    """
    host hostaddr port dbname user service servicefile passfile connect_timeout client_encoding
    application_name fallback_application_name keepalives keepalives_idle keepalives_interval
    keepalives_count tcp_user_timeout sslmode sslnegotiation sslcert sslkey sslrootcert sslcrl
    sslcrldir sslsni sslcompression sslcertmode sslkeylogfile requirepeer requiressl require_auth
    ssl_min_protocol_version ssl_max_protocol_version min_protocol_version max_protocol_version
    channel_binding gssencmode gsslib gssdelegation krbsrvname replication target_session_attrs
    load_balance_hosts ssl mode cache immutable charset
    """.split()  # noqa: SIM905 - words are easier to read than quotes
)
_HIDDEN: Final = rf"(?i)options|[\w-]*(?:{_SENSITIVE}|client_key)"
_HIDDEN_PAIR: Final = (
    rf"(?is)([\w-]*{_SENSITIVE})(\s*=\s*)"
    r"('(?:[^'\\]|\\.)*'?|(?:\\.|\S)*)"
)
#: Parameters that are paths.
_FILES: Final = frozenset(
    "passfile servicefile sslcert sslkey sslrootcert sslcrl sslcrldir sslkeylogfile".split()  # noqa: SIM905 - as above
)
#: A shorter secret is masked only where it stands alone: within other words it tells nothing.
_LONG: Final = 4


class _Parameter(Record):
    """One parameter of an address: its name, its value as written, and as it is meant."""

    name: str
    written: str
    value: str


def scheme(address: str) -> str | None:
    """The part before `://` in lower case, without a driver (`+psycopg2`); None for none."""
    name, mark, _ = address.partition("://")
    if not mark or name[:1] not in _LETTERS or not _SCHEME.issuperset(name):
        return None
    return name.lower().partition("+")[0]


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
        check_form(address)
        return _checked_path(address.removeprefix("sqlite:"))
    if name not in ("sqlite", "sqlite3"):
        raise InvalidConfigurationError(
            f"{redact(address)} is not the address of a SQLite database",
            hint=FORMS["sqlite"],
        )
    rest = address.partition("://")[2]
    if rest in (":memory:", "/:memory:", ""):
        return ":memory:"
    if not rest.startswith("/"):
        raise InvalidConfigurationError(
            f"{redact(address)} names a host, and SQLite has none",
            hint=f"a relative path takes three slashes: sqlite:///{_redact_path(rest)}",
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


def of_sqlite_file(path: str) -> str:
    """The address of a SQLite file, by its absolute path."""
    if "%" in path or "?" in path:
        from urllib.parse import quote

        path = quote(path, safe="/\\: ")
    return f"sqlite:///{path}"


def check_form(address: str) -> None:
    """Refuse a text that has no form of an address, and would be taken for the path of a file.

    Raises `InvalidConfigurationError`, which quotes nothing of it.
    """
    if scheme(address) is None and not _is_keyword_string(address) and _hides(address):
        raise _cannot_be_read(
            "it seems to hold a password, and is neither a URL nor a list of KEY=VALUE",
            f"{FORMS['postgres']}, with no quotes or other text around it; "
            "the path of a file of such a name begins with ./",
        )


def libpq_address(address: str) -> str:
    """An address of PostgreSQL as libpq takes it: without SQLAlchemy's driver in its scheme.

    Raises `InvalidConfigurationError`, which quotes no secret, for one of another kind and for
    one that libpq would misread.
    """
    if backend_of(address) != "postgres":
        raise InvalidConfigurationError(
            f"{redact(address)} is not the address of a PostgreSQL database",
            hint=FORMS["postgres"],
        )
    _check(address)
    name = scheme(address)
    return address if name is None else f"{name}://{address.partition('://')[2]}"


def keyword(name: str, value: str) -> str:
    """`name='value'` as it stands in libpq's keyword strings."""
    return f"{name}='" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def libpq_url(parameters: Mapping[str, Any]) -> str:
    """The URL that these parameters of libpq make; what has no place before its `?` is behind it.

    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    """
    from urllib.parse import quote, urlencode

    rest = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    user = host = ""
    if "user" in rest:
        user = quote(rest.pop("user"), safe="")
        if "password" in rest:
            user += ":" + quote(rest.pop("password"), safe="")
        user += "@"
    port = rest.get("port", "")
    if re.fullmatch(r"[\w.-]+", rest.get("host", ""), re.ASCII) and re.fullmatch(r"\d*", port):
        host = rest.pop("host") + (f":{rest.pop('port')}" if port else "")
    database = quote(rest.pop("dbname", ""), safe="")
    more = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return f"postgresql://{user}{host}/{database}{more}"


def has_timeout(address: str) -> bool:
    """Whether an address says how long to try to connect."""
    return any(one.name == "connect_timeout" for one in _parameters(address))


def unreadable(address: str) -> InvalidConfigurationError:
    """The error for an address that a driver does not take: most often a parameter's name.

    It quotes nothing of what the driver says, nor of the address.
    """
    from difflib import get_close_matches

    known = sorted(_SHOWN | {"password", "options", "sslpassword"})
    for number, one in enumerate(_parameters(address), 1):
        if one.name == "ssl":
            return _cannot_be_read("ssl is a parameter of asyncpg", "libpq's is sslmode=require")
        if one.name == "connect_timeout" and not re.fullmatch(r"\s*-?\d+\s*", one.value):
            return _cannot_be_read(
                "its connect_timeout is not a whole number of seconds", "write connect_timeout=5"
            )
        if one.name in known:
            continue
        # Only the name that is meant: the one that is given may be a piece of a password.
        near = get_close_matches(one.name.lower(), known, n=1)
        return _cannot_be_read(
            f"libpq does not know parameter {number} of it",
            f"is it {near[0]}?"
            if near
            else "in a value, write & as %26; a value that holds a "
            "space, in KEY=VALUE KEY=VALUE, stands in quotes",
        )
    return _cannot_be_read("libpq does not take it", f"an address reads {FORMS['postgres']}")


def relative_to(address: str, directory: str) -> str:
    """The address with its relative paths counted from `directory`.

    They are SQLite's file, and those of certificates, keys and password files.
    """
    if backend_of(address) == "postgres":
        return _with_files_in(address, directory)
    if backend_of(address) != "sqlite" or (path := sqlite_path(address)) == ":memory:":
        return address
    return _join(directory, path)


def redact(address: str) -> str:
    """The address as it may be shown: without its secrets, and with all else readable.

    Of one that does not parse no more than the scheme is left.
    """
    if _TELLING.isdisjoint(address):
        return address
    if _is_keyword_string(address):
        if _pairs(address) is None:
            return "***"
        return _redact_parameters(address, " ")
    name = scheme(address)
    if name is None or _BACKEND_OF_SCHEME.get(name) == "sqlite":
        return _redact_path(address)
    match = re.fullmatch(_URL, address)
    if match is None or not _ports_are_right(match["hosts"]):
        return f"{address.partition('://')[0]}://***"
    user = match["user"] or ""
    userinfo = f"{user}:***@" if match["password"] is not None else f"{user}@" if user else ""
    query = match["query"]
    shown = "" if query is None else "?" + _redact_parameters(address, "&")
    return match["start"] + userinfo + match["hosts"] + match["path"] + shown


def without_secrets(message: str, address: str) -> str:
    """A driver's message with every trace of the address's secrets replaced by `***`."""
    for secret in sorted(_secrets(address), key=len, reverse=True):
        pattern = re.escape(secret)
        if len(secret) < _LONG:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        message = re.sub(pattern, "***", message)
    return re.sub(_HIDDEN_PAIR, r"\1\2***", message)


# Reading ------------------------------------------------------------------------------------


def _check(address: str) -> None:
    """Refuse what a driver would misread, quoting pieces of a secret in its error."""
    if not address.isprintable() and re.search(_UNPRINTABLE, address):
        raise _cannot_be_read(
            "it holds a control character or bytes that are not UTF-8",
            "in a URL write them percent-encoded, a line break as %0A for instance",
        )
    if _is_keyword_string(address):
        if _pairs(address) is None:
            raise _cannot_be_read(
                "it is no list of KEY=VALUE",
                "with quotes around a value that holds a space: host=localhost dbname=app "
                "password='two words'; in quotes, write ' as \\' and \\ as \\\\",
            )
        return
    if "%" in address and re.search(_BAD_PERCENT, address):
        raise _cannot_be_read(
            "a % is not followed by the two digits of a character", "write % itself as %25"
        )
    if _is_plain(address):
        return
    match = re.fullmatch(_URL, address)
    if match is None:
        raise _misread(address)
    if not _ports_are_right(match["hosts"]):
        raise _no_port()


def _is_plain(url: str) -> bool:
    """Whether a URL is one of the grammar at first sight, which takes long to compile.

    It is `scheme://user:password@host:port/database` of letters, digits, `.`, `_` and `-`.
    """
    authority, _, database = url.partition("://")[2].partition("/")
    userinfo, _, location = authority.rpartition("@")
    user, _, password = userinfo.partition(":")
    host, colon, port = location.partition(":")
    has_port = port.isascii() and port.isdigit() and 0 < int(port) < 2**16
    words = (user, password, host, database)
    return (has_port or not colon) and all(map(_WORD.issuperset, words))


def _misread(address: str) -> InvalidConfigurationError:
    """What is wrong with a URL that is not of the grammar, as far as can be told."""
    rest = address.partition("://")[2]
    before, at, _ = rest.rpartition("@")
    if at and "=" not in before.partition("?")[2] and re.search(r"[/?#@\s]", before):
        return _not_encoded()
    authority, *_ = re.split(r"[/?#]", rest, maxsplit=1)
    if re.fullmatch(r"[^@\s]*@?[^@\s]*", authority):
        if not re.fullmatch(_HOSTS, authority.rpartition("@")[2]):
            return _no_port()
        if "?" in rest:
            return _cannot_be_read(
                "its parameters are not NAME=VALUE&NAME=VALUE",
                "in a value write = as %3D, & as %26 and a space as %20",
            )
    return _not_encoded()


def _cannot_be_read(problem: str, hint: str) -> InvalidConfigurationError:
    return InvalidConfigurationError(f"the database's address cannot be read: {problem}", hint=hint)


def _not_encoded() -> InvalidConfigurationError:
    return _cannot_be_read(
        "its user name or password holds a character that must be percent-encoded",
        "write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and a space as %20",
    )


def _no_port() -> InvalidConfigurationError:
    return _cannot_be_read(
        "the port is not a number from 1 to 65535", f"an address reads {FORMS['postgres']}"
    )


def _ports_are_right(hosts: str) -> bool:
    ports = re.findall(r":(\d+)(?=,|$)", hosts)
    return all(0 < int(port) < 2**16 for port in ports)


def _checked_path(path: str) -> str:
    if "@" in path and re.match(_FORGOTTEN_SCHEME, path):
        raise InvalidConfigurationError(
            "the address reads like one with a user and a password, which SQLite has not",
            hint=f"{FORMS['postgres']}, for instance; a file of that name is ./NAME",
        )
    # Of an empty path, SQLite makes a database that is gone when it is closed.
    if not path.strip() or "\0" in path:
        raise InvalidConfigurationError(
            "the address names no file" if not path.strip() else "the address holds a NUL byte",
            hint=FORMS["sqlite"],
        )
    return path


def _is_keyword_string(address: str) -> bool:
    return "=" in address and re.match(_KEYWORD_STRING, address) is not None


def _pairs(address: str) -> list[re.Match[str]] | None:
    """The `name=value` pairs of a keyword string, as libpq reads them; None for no such string."""
    found = []
    pair = re.compile(_PAIR)
    at = 0
    text = address.rstrip()
    while at < len(text):
        match = pair.match(text, at)
        if match is None:
            return None
        found.append(match)
        at = match.end()
    return found


def _parameters(address: str) -> Iterator[_Parameter]:
    """The parameters of a keyword string, or of a URL behind its `?`."""
    if _is_keyword_string(address):
        for pair in _pairs(address) or ():
            quoted = pair["value"]
            inner = quoted[1:-1] if quoted.startswith("'") else quoted
            yield _Parameter(pair["name"], quoted, re.sub(r"(?s)\\(.)", r"\1", inner))
        return
    for part in filter(None, address.partition("?")[2].split("&")):
        name, _, value = part.partition("=")
        yield _Parameter(_decoded(name), value, _decoded(value))


def _decoded(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text)


def _join(directory: str, path: str) -> str:
    return path if directory == os.curdir else os.path.join(directory, path)


def _with_files_in(address: str, directory: str) -> str:
    is_url = scheme(address) is not None
    if not any(one.name in _FILES for one in _parameters(address)):
        return address

    def moved(one: _Parameter) -> str:
        # `system` is libpq's word for the system's certificates; a colon is an engine's key.
        if one.name in _FILES and one.value not in ("", "system") and ":" not in one.value:
            path = _join(directory, one.value)
            if is_url:
                from urllib.parse import quote

                return f"{one.name}={quote(path)}"
            return keyword(one.name, path)
        return f"{one.name}={one.written}"

    parts = [moved(one) for one in _parameters(address)]
    if is_url:
        return address.partition("?")[0] + "?" + "&".join(parts)
    return " ".join(parts)


# Hiding -------------------------------------------------------------------------------------


def _redact_parameters(address: str, separator: str) -> str:
    return separator.join(map(_shown, _parameters(address)))


def _shown(parameter: _Parameter) -> str:
    # With one of these, it is an address within the address, or what is not encoded.
    if parameter.name in _SHOWN and not re.search("=|://|%3A%2F%2F", parameter.written):
        return f"{parameter.name}={parameter.written}"
    return f"{parameter.name}=***" if re.fullmatch(_HIDDEN, parameter.name) else "***"


def _redact_path(address: str) -> str:
    """A SQLite address; what looks like an address of another kind is cut where that shows."""
    start, slashes, rest = address.partition("://") if scheme(address) else ("", "", address)
    if cut := re.search(r"(?s):(?!(?<=^[A-Za-z]:)[\\/]).*@", rest):
        return f"{start}{slashes}{rest[: cut.start()]}:***"
    path, mark, _ = rest.partition("?")
    if not start and _hides(path):
        return "***"
    return start + slashes + path + (mark and mark + _redact_parameters(address, "&"))


def _hides(text: str) -> bool:
    """Whether a text that is no address, nor surely a path, seems to hold a password."""
    if _TELLING.isdisjoint(text) or re.match(_SURE_PATH, text):
        return False
    return re.search(_REVEALING, text) is not None or re.match(r"[^@]*/[^@]*@", text) is not None


def _secrets(address: str) -> set[str]:
    """What must not be seen of an address, as it is written and as it is meant."""
    if redact(address) == address:
        return set()
    match = re.fullmatch(_URL, address)
    if match is None and not (_is_keyword_string(address) and _pairs(address)):
        # Of what does not parse, any piece.
        return set(re.split(r"[\s/?#@:&='\"]+", address.partition("://")[2] or address)) - {""}
    found: set[str] = set()
    shown: set[str] = set()
    for one in _parameters(address):
        texts = {one.written, one.value}
        if one.name in _SHOWN:
            shown |= texts
        else:
            # The server quotes single settings of `options`.
            inner = (setting[3] for setting in re.finditer(_HIDDEN_PAIR, one.value))
            found |= texts.union(inner)
    if match is not None:
        password = match["password"] or ""
        found |= {password, _decoded(password)}
        shown |= {_decoded(match["user"] or ""), _decoded(match["path"][1:])}
    # What is a user's or a database's name as well tells nothing of the password.
    return found - shown - {""}
