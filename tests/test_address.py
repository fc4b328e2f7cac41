"""Addresses: which backend they mean, which file, and that none shows its password."""

from __future__ import annotations

import os

import pytest

from flux import address
from flux.exceptions import InvalidConfigurationError


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        pytest.param("app.db", "sqlite", id="a path"),
        pytest.param(":memory:", "sqlite", id="memory"),
        pytest.param("sqlite:///app.db", "sqlite", id="sqlite"),
        pytest.param("sqlite3:///app.db", "sqlite", id="sqlite3"),
        pytest.param("file:///app.db", "sqlite", id="file"),
        pytest.param("postgres://h/db", "postgres", id="postgres"),
        pytest.param("postgresql://h/db", "postgres", id="postgresql"),
        pytest.param("POSTGRESQL+psycopg2://h/db", "postgres", id="capitals and a driver"),
        pytest.param("host=h dbname=db", "postgres", id="keywords"),
        pytest.param("password=x host=h", "postgres", id="keywords, the password first"),
        pytest.param("sslmode=require host=h", "postgres", id="keywords, TLS first"),
        pytest.param("service=app", "postgres", id="a service"),
        pytest.param(" options = '-c a=b'", "postgres", id="spaces around the equals sign"),
        pytest.param("hots=h", "postgres", id="a mistyped keyword"),
        pytest.param("./tenant=5/app.db", "sqlite", id="a path with an equals sign"),
        pytest.param("postgresql+asyncpg://h/db", "postgres", id="an asynchronous driver"),
        pytest.param("cooldb://h/db", "cooldb", id="another's scheme"),
        pytest.param("C:\\data\\app.db", "sqlite", id="a Windows path"),
    ],
)
def test_backend_of(given: str, backend: str) -> None:
    assert address.backend_of(given) == backend


@pytest.mark.parametrize(
    ("given", "path"),
    [
        pytest.param("app.db", "app.db", id="a path"),
        pytest.param("/srv/app.db", "/srv/app.db", id="an absolute path"),
        pytest.param("./5", "./5", id="a file of digits"),
        pytest.param("50%.db", "50%.db", id="a path is not decoded"),
        pytest.param("sqlite:app.db", "app.db", id="one colon"),
        pytest.param("sqlite:///app.db", "app.db", id="three slashes"),
        pytest.param("sqlite:////srv/app.db", "/srv/app.db", id="four slashes"),
        pytest.param("sqlite:///C:/app.db", "C:/app.db", id="Windows"),
        pytest.param("sqlite:///a%20b.db", "a b.db", id="percent-encoded"),
        pytest.param(":memory:", ":memory:", id="memory"),
        pytest.param("sqlite://", ":memory:", id="memory as SQLAlchemy has it"),
        pytest.param("sqlite:///:memory:", ":memory:", id="memory in a URL"),
        pytest.param("sqlite://:memory:", ":memory:", id="memory with two slashes"),
        pytest.param("C:\\a@b\\app.db", "C:\\a@b\\app.db", id="a Windows path with an at sign"),
    ],
)
def test_sqlite_path(given: str, path: str) -> None:
    assert address.sqlite_path(given) == path


_FORMS = "hint: a path, or sqlite:///relative/path, or sqlite:////absolute/path"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            "postgresql://u:pw@h/db",
            f"postgresql://u:***@h/db is not the address of a SQLite database\n{_FORMS}",
            id="PostgreSQL",
        ),
        pytest.param(
            "host=h password=pw",
            f"host=h password=*** is not the address of a SQLite database\n{_FORMS}",
            id="keywords",
        ),
        pytest.param(
            "file:app.db?mode=ro",
            f"file:app.db?mode=ro is not the address of a SQLite database\n{_FORMS}",
            id="a file URI",
        ),
        pytest.param(
            "sqlite://app.db",
            "sqlite://app.db names a host, and SQLite has none\n"
            "hint: a relative path takes three slashes: sqlite:///app.db",
            id="two slashes",
        ),
        pytest.param(
            "sqlite://u:pw@app.db",
            "sqlite://u:*** names a host, and SQLite has none\n"
            "hint: a relative path takes three slashes: sqlite:///u:***",
            id="a password for SQLite",
        ),
        pytest.param(
            "sqlite:///app.db?mode=ro",
            "sqlite:///app.db?mode=ro has parameters, which flux does not take for SQLite",
            id="parameters",
        ),
        pytest.param(
            "u:pw@h/db",
            "the address reads like one with a user and a password, which SQLite has not\n"
            "hint: postgresql://user:password@host:port/database, for instance; a file of that "
            "name is ./NAME",
            id="a scheme that was forgotten",
        ),
        pytest.param(
            "sqlite:///u:pw@h/db",
            "the address reads like one with a user and a password, which SQLite has not\n"
            "hint: postgresql://user:password@host:port/database, for instance; a file of that "
            "name is ./NAME",
            id="a scheme that is another's",
        ),
        pytest.param("", f"the address names no file\n{_FORMS}", id="nothing"),
        pytest.param("  ", f"the address names no file\n{_FORMS}", id="blanks"),
        pytest.param("sqlite:", f"the address names no file\n{_FORMS}", id="a scheme alone"),
        pytest.param("sqlite:///", f"the address names no file\n{_FORMS}", id="slashes alone"),
        pytest.param("a\0b", f"the address holds a NUL byte\n{_FORMS}", id="NUL"),
        pytest.param("sqlite:///%00", f"the address holds a NUL byte\n{_FORMS}", id="encoded NUL"),
    ],
)
def test_what_is_no_sqlite_path(given: str, message: str) -> None:
    """A database in memory or in a file of an odd name would be migrated, and be gone."""
    with pytest.raises(InvalidConfigurationError) as caught:
        address.sqlite_path(given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "path"),
    [
        pytest.param("app.db", os.path.join("project", "app.db"), id="a path"),
        pytest.param("sqlite:///app.db", os.path.join("project", "app.db"), id="a URL"),
        pytest.param("sqlite:////srv/app.db", "/srv/app.db", id="absolute"),
        pytest.param(":memory:", ":memory:", id="memory"),
        pytest.param("postgresql://h/db", "postgresql://h/db", id="PostgreSQL"),
        pytest.param(
            "postgresql://h/db?sslmode=verify-full&sslrootcert=tls%2Fthe%20ca.pem",
            "postgresql://h/db?sslmode=verify-full&sslrootcert=project/tls/the%20ca.pem",
            id="a certificate",
        ),
        pytest.param(
            "host=h sslrootcert='the ca.pem' password='a b'",
            "host=h sslrootcert='project/the ca.pem' password='a b'",
            id="a certificate, keywords",
        ),
        pytest.param(
            "postgresql://h/db?sslrootcert=system&sslkey=/k&passfile=",
            "postgresql://h/db?sslrootcert=system&sslkey=/k&passfile=",
            id="what is no relative path",
        ),
        pytest.param("cooldb:///app.cool", "cooldb:///app.cool", id="another's scheme"),
    ],
)
def test_relative_to(given: str, path: str) -> None:
    assert address.relative_to(given, "project") == path


def test_relative_to_the_working_directory_keeps_the_path_short() -> None:
    assert address.relative_to("sqlite:///app.db", ".") == "app.db"


SECRET = "s3kr1t"
_ENCODED = "s3kr1t%21"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param("app.db", "app.db", id="a path"),
        pytest.param("me@home.db", "me@home.db", id="a path with an at sign"),
        pytest.param("postgresql://h/db", "postgresql://h/db", id="no user"),
        pytest.param("postgresql://u@h/db", "postgresql://u@h/db", id="no password"),
        pytest.param("postgresql://u:s3kr1t@h/db", "postgresql://u:***@h/db", id="a password"),
        pytest.param("postgresql://:s3kr1t@h/db", "postgresql://:***@h/db", id="no user name"),
        pytest.param("postgresql://u:a@s3kr1t@h/db", "postgresql://***", id="at sign in it"),
        pytest.param("postgresql://u:a/s3kr1t@h/db", "postgresql://***", id="slash in it"),
        pytest.param("postgresql://u:a?s3kr1t@h/db", "postgresql://***", id="query in it"),
        pytest.param("postgresql://u:a#s3kr1t@h/db", "postgresql://***", id="hash in it"),
        pytest.param("postgresql://u:a:s3kr1t@h/db", "postgresql://u:***@h/db", id="colon in it"),
        pytest.param("postgresql://u:a s3kr1t@h/db", "postgresql://***", id="space in it"),
        pytest.param("postgres:u:s3kr1t@h/db", "postgres:***", id="no slashes"),
        pytest.param("postgresql:/u:s3kr1t@h/db", "postgresql:***", id="one slash"),
        pytest.param("u:s3kr1t@h/db", "u:***", id="no scheme"),
        pytest.param("//u:s3kr1t@h/db", "//u:***", id="no scheme, slashes"),
        pytest.param("1x://u:s3kr1t@h/db", "1x:***", id="no valid scheme"),
        pytest.param(
            "postgresql://h/db?user=u&password=s3kr1t&sslmode=require",
            "postgresql://h/db?user=u&password=***&sslmode=require",
            id="a parameter",
        ),
        pytest.param("postgresql://h/db?password=a s3kr1t", "postgresql://***", id="with space"),
        pytest.param(
            "postgresql://h/db?sslpassword=s3kr1t",
            "postgresql://h/db?sslpassword=***",
            id="of a key",
        ),
        pytest.param("libsql://h?authToken=s3kr1t", "libsql://h?authToken=***", id="a token"),
        pytest.param("host=h password=s3kr1t", "host=h password=***", id="keyword"),
        pytest.param("PASSWORD = s3kr1t host=h", "PASSWORD=*** host=h", id="keyword, capitals"),
        pytest.param("password='a s3kr1t' host=h", "password=*** host=h", id="keyword, quoted"),
        pytest.param(r"password='a\' s3kr1t' host=h", "password=*** host=h", id="quote in it"),
        pytest.param("password='a s3kr1t", "***", id="quote not closed"),
        pytest.param(r"password=a\ s3kr1t host=h", "password=*** host=h", id="escaped space"),
        pytest.param("password=a&s3kr1t host=h", "password=*** host=h", id="ampersand"),
        pytest.param("host=h password=a:s3kr1t@b", "host=h password=***", id="keyword like a URL"),
        pytest.param("pasword=s3kr1t host=h", "*** host=h", id="keyword, mistyped"),
        pytest.param("password=a s3kr1t=b", "password=*** ***", id="keyword, space and equals"),
        pytest.param("password=a s3kr1t", "***", id="keyword, space"),
        pytest.param("options='-c x.y=s3kr1t'", "options=***", id="keyword, options"),
        pytest.param(
            "application_name='password=s3kr1t'", "***", id="keyword, an address in a value"
        ),
        pytest.param("dbname=postgresql://u:s3kr1t@h", "***", id="keyword, a URL in a value"),
        pytest.param(
            "postgresql://u:p@h:5432/db?password=a@s3kr1t",
            "postgresql://u:***@h:5432/db?password=***",
            id="an at sign in a parameter",
        ),
        pytest.param(
            "postgresql://h/db?password=a&s3kr1t=b", "postgresql://h/db?password=***&***", id="cut"
        ),
        pytest.param(
            "postgresql://h/db?password=a&s3kr1t", "postgresql://***", id="cut at its end"
        ),
        pytest.param("postgresql://h/db?a=s3kr1t", "postgresql://h/db?***", id="unknown parameter"),
        pytest.param("postgresql://u:123456", "postgresql://***", id="a password for a port"),
        pytest.param("postgresql://u:s3kr1t", "postgresql://***", id="letters for a port"),
        pytest.param(
            "postgresql://u:s3kr1t@a:1,b/db?target_session_attrs=read-write",
            "postgresql://u:***@a:1,b/db?target_session_attrs=read-write",
            id="several hosts",
        ),
        pytest.param("mysql://u:s3kr1t@h/db", "mysql://u:***@h/db", id="another scheme"),
        pytest.param("sqlite:///app.db?key=s3kr1t", "sqlite:///app.db?***", id="SQLite's key"),
        pytest.param(
            "sqlite:///u:s3kr1t@h/db", "sqlite:///u:***", id="user and password of a file"
        ),
        pytest.param("app.db?password=s3kr1t", "app.db?password=***", id="parameter of a path"),
    ],
)
def test_redact(given: str, shown: str) -> None:
    assert address.redact(given) == shown
    assert SECRET not in address.redact(given)


@pytest.mark.parametrize(
    ("given", "message", "told"),
    [
        pytest.param(
            "postgresql://u:s3kr1t@h/db",
            'could not parse "u:s3kr1t@h"',
            'could not parse "u:***@h"',
            id="in a URL",
        ),
        pytest.param(
            "postgresql://u:s3kr1t%21@h/db",
            "no s3kr1t! and no s3kr1t%21",
            "no *** and no ***",
            id="decoded, too",
        ),
        pytest.param(
            "postgresql://h/db?password=s3kr1t", "s3kr1t is wrong", "*** is wrong", id="parameter"
        ),
        pytest.param("password=s3kr1t", "s3kr1t is wrong", "*** is wrong", id="keyword"),
        pytest.param(
            r"password='s3kr1t\'s'", "s3kr1t's is wrong", "*** is wrong", id="keyword, unescaped"
        ),
        pytest.param("u:s3kr1t@h", "s3kr1t is wrong", "*** is wrong", id="no scheme"),
        pytest.param(
            "postgresql://h/db", "dsn was password=s3kr1t x", "dsn was password=*** x", id="another"
        ),
        pytest.param(
            "postgresql://u@h/db",
            'password authentication failed for user "u"',
            'password authentication failed for user "u"',
            id="nothing to hide",
        ),
        pytest.param(
            "postgresql://u:a@h/db",
            'a database "a b" is away',
            '*** database "*** b" is away',
            id="a short one, standing alone",
        ),
        pytest.param(
            "postgresql://u:ed@h/db",
            'connection refused by "u:ed@h"',
            'connection refused by "u:***@h"',
            id="a short one, within words",
        ),
        pytest.param(
            "postgresql://app:app@h/db",
            'password authentication failed for user "app"',
            'password authentication failed for user "app"',
            id="the user's name as a password",
        ),
        pytest.param(
            "host=h options='-c x.password=s3kr1t'",
            'invalid value: "s3kr1t"',
            'invalid value: "***"',
            id="a setting in options",
        ),
        pytest.param(
            "cooldb://u:s3k@r1ttt@h/db",
            "no host r1ttt, no user s3k",
            "no host ***, no user ***",
            id="pieces of what does not parse",
        ),
        pytest.param("app.db", "no file app.db", "no file app.db", id="a path"),
    ],
)
def test_without_secrets(given: str, message: str, told: str) -> None:
    assert address.without_secrets(message, given) == told


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        pytest.param("postgresql://u:p@h/db", None, id="plain"),
        pytest.param("postgresql://u:p%40%2F@h:5432/db?sslmode=require", None, id="encoded"),
        pytest.param("postgresql://", None, id="all from the environment"),
        pytest.param("postgresql:///db", None, id="no host"),
        pytest.param("postgresql:///?service=app", None, id="a service"),
        pytest.param("postgresql://h1:1,h2:2/db", None, id="two hosts"),
        pytest.param("postgresql://[::1]:5432/db", None, id="IPv6"),
        pytest.param("postgresql://[::1]/db", None, id="IPv6, no port"),
        pytest.param("postgresql://%2Fvar%2Frun/db", None, id="a socket"),
        pytest.param("postgresql:///db?host=/var/run", None, id="a socket as a parameter"),
        pytest.param("postgresql://u:p@h/db?application_name=a@b", None, id="two at signs"),
        pytest.param("postgresql+psycopg2://h/db", "postgresql://h/db", id="psycopg2"),
        pytest.param("postgresql+psycopg://h/db", "postgresql://h/db", id="psycopg"),
        pytest.param("postgres+asyncpg://h/db", "postgres://h/db", id="asyncpg"),
        pytest.param("PostgreSQL://h/db", "postgresql://h/db", id="capitals"),
        pytest.param("host=h password=p@ss/word", None, id="keywords"),
        pytest.param(r"host = h  password='a b\'c\\' user=a\ b", None, id="keywords, quoted"),
        pytest.param("host=h\nport=1", None, id="keywords on lines"),
    ],
)
def test_libpq_address(given: str, taken: str | None) -> None:
    assert address.libpq_address(given) == (taken or given)


_READ = "the database's address cannot be read: "
_ENCODE = (
    f"{_READ}its user name or password holds a character that must be percent-encoded\n"
    "hint: write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and a space as %20"
)
_PORT = (
    f"{_READ}the port is not a number from 1 to 65535\n"
    "hint: an address reads postgresql://user:password@host:port/database"
)
_PERCENT = (
    f"{_READ}a % is not followed by the two digits of a character\nhint: write % itself as %25"
)
_PARAMETERS = (
    f"{_READ}its parameters are not NAME=VALUE&NAME=VALUE\n"
    "hint: in a value write = as %3D, & as %26 and a space as %20"
)
_KEYWORDS = (
    f"{_READ}it is no list of KEY=VALUE\n"
    "hint: with quotes around a value that holds a space: host=localhost dbname=app "
    r"password='two words'; in quotes, write ' as \' and \ as \\"
)
_CONTROL = (
    f"{_READ}it holds a control character or bytes that are not UTF-8\n"
    "hint: in a URL write them percent-encoded, a line break as %0A for instance"
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param("postgresql://u:s3@kr1t@h/db", _ENCODE, id="at sign"),
        pytest.param("postgresql://u:s3/kr1t@h/db", _ENCODE, id="slash"),
        pytest.param("postgresql://u:53/kr1t@h/db", _ENCODE, id="digits and a slash"),
        pytest.param("postgresql://u:s3#kr1t@h/db", _ENCODE, id="hash"),
        pytest.param("postgresql://u:s3?kr1t@h/db", _ENCODE, id="question mark"),
        pytest.param("postgresql://u:53?kr1t@h/db", _ENCODE, id="digits and a question mark"),
        pytest.param("postgresql://u:s3 kr1t@h/db", _ENCODE, id="space"),
        pytest.param("postgresql://u:s3kr1t%zz@h/db", _PERCENT, id="percent sign"),
        pytest.param("postgresql://u:s3kr1t%@h/db", _PERCENT, id="percent sign at the end"),
        pytest.param("postgresql://u:s3kr1t%00@h/db", _PERCENT, id="NUL, percent-encoded"),
        pytest.param("postgresql://u:s3\0kr1t@h/db", _CONTROL, id="NUL"),
        pytest.param("postgresql://u:s3\udcffkr1t@h/db", _CONTROL, id="not UTF-8"),
        pytest.param("postgresql://h:s3kr1t/db", _PORT, id="no at sign"),
        pytest.param("postgresql://h:123456/db", _PORT, id="no port, a password of digits"),
        pytest.param("postgresql://h:0/db", _PORT, id="zero"),
        pytest.param("postgresql://h1:1,h2:x/db", _PORT, id="the second port"),
        pytest.param("postgresql://[::1]:x/db", _PORT, id="IPv6"),
        pytest.param("postgresql://h/db?password=s3=kr1t", _PARAMETERS, id="equals sign"),
        pytest.param("postgresql://h/db?password=s3&kr1t", _PARAMETERS, id="ampersand"),
        pytest.param("postgresql://h/db?password=s3 kr1t", _PARAMETERS, id="space in a parameter"),
        pytest.param("host=h password=s3 kr1t", _KEYWORDS, id="keywords, a space"),
        pytest.param("host=h password='s3kr1t", _KEYWORDS, id="keywords, a quote"),
        pytest.param("host=h password='s3'kr1t'", _KEYWORDS, id="keywords, a quote in quotes"),
        pytest.param("host=h password='s3\0kr1t'", _CONTROL, id="keywords, NUL"),
    ],
)
def test_what_a_driver_would_misread(given: str, message: str) -> None:
    """A driver would take a part of the password for the host, and name it in its error."""
    with pytest.raises(InvalidConfigurationError) as caught:
        address.libpq_address(given)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        pytest.param("postgresql://h/db?sslmod=require", "is it sslmode?", id="URL"),
        pytest.param("hots=h dbname=db", "is it host?", id="keywords"),
    ],
)
def test_a_parameter_that_libpq_does_not_know(given: str, hint: str) -> None:
    error = address.unreadable(given)
    assert error.message == f"{_READ}libpq does not know parameter 1 of it"
    assert error.hint == hint


@pytest.mark.parametrize("given", ["postgresql://h/db?connect_timeout=5s", "connect_timeout=5s"])
def test_a_timeout_that_is_no_number(given: str) -> None:
    error = address.unreadable(given)
    assert error.message == f"{_READ}its connect_timeout is not a whole number of seconds"
    assert error.hint == "write connect_timeout=5"
