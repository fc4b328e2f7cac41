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
            "sqlite://u:***@app.db names a host, and SQLite has none\n"
            "hint: a relative path takes three slashes: sqlite:///u:***@app.db",
            id="a password for SQLite",
        ),
        pytest.param(
            "sqlite:///app.db?mode=ro",
            "sqlite:///app.db?mode=ro has parameters, which flux does not take for SQLite",
            id="parameters",
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
        pytest.param("postgresql://u:a@s3kr1t@h/db", "postgresql://u:***@h/db", id="at sign in it"),
        pytest.param("postgresql://u:a/s3kr1t@h/db", "postgresql://u:***@h/db", id="slash in it"),
        pytest.param("postgresql://u:a?s3kr1t@h/db", "postgresql://u:***@h/db", id="query in it"),
        pytest.param("postgresql://u:a#s3kr1t@h/db", "postgresql://u:***@h/db", id="hash in it"),
        pytest.param("postgresql://u:a:s3kr1t@h/db", "postgresql://u:***@h/db", id="colon in it"),
        pytest.param("postgresql://u:a s3kr1t@h/db", "postgresql://u:***@h/db", id="space in it"),
        pytest.param("postgres:u:s3kr1t@h/db", "postgres:***@h/db", id="no slashes"),
        pytest.param("postgresql:/u:s3kr1t@h/db", "postgresql:***@h/db", id="one slash"),
        pytest.param("u:s3kr1t@h/db", "u:***@h/db", id="no scheme"),
        pytest.param("//u:s3kr1t@h/db", "//u:***@h/db", id="no scheme, slashes"),
        pytest.param("1x://u:s3kr1t@h/db", "1x:***@h/db", id="no valid scheme"),
        pytest.param(
            "postgresql://h/db?user=u&password=s3kr1t&sslmode=require",
            "postgresql://h/db?user=u&password=***&sslmode=require",
            id="a parameter",
        ),
        pytest.param(
            "postgresql://h/db?password=a s3kr1t", "postgresql://h/db?password=***", id="with space"
        ),
        pytest.param(
            "postgresql://h/db?sslpassword=s3kr1t",
            "postgresql://h/db?sslpassword=***",
            id="of a key",
        ),
        pytest.param("libsql://h?authToken=s3kr1t", "libsql://h?authToken=***", id="a token"),
        pytest.param("host=h password=s3kr1t", "host=h password=***", id="keyword"),
        pytest.param("PASSWORD = s3kr1t host=h", "PASSWORD = *** host=h", id="keyword, capitals"),
        pytest.param("password='a s3kr1t' host=h", "password=*** host=h", id="keyword, quoted"),
        pytest.param(r"password='a\' s3kr1t' host=h", "password=*** host=h", id="quote in it"),
        pytest.param("password='a s3kr1t", "password=***", id="quote not closed"),
        pytest.param(r"password=a\ s3kr1t host=h", "password=*** host=h", id="escaped space"),
        pytest.param("password=a&s3kr1t host=h", "password=*** host=h", id="ampersand"),
        pytest.param("host=h password=a:s3kr1t@b", "host=h password=***", id="keyword like a URL"),
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
    ],
)
def test_without_secrets(given: str, message: str, told: str) -> None:
    assert address.without_secrets(message, given) == told


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("postgresql://u:p@h/db", id="plain"),
        pytest.param("postgresql://u:p%40%2F@h:5432/db?sslmode=require", id="encoded"),
        pytest.param("postgresql:///db", id="no host"),
        pytest.param("postgresql://h1:1,h2:2/db", id="two hosts"),
        pytest.param("postgresql://[::1]:5432/db", id="IPv6"),
        pytest.param("postgresql://[::1]/db", id="IPv6, no port"),
        pytest.param("postgresql://%2Fvar%2Frun/db", id="a socket"),
        pytest.param("postgresql://h/db?application_name=a@b", id="an at sign in a parameter"),
        pytest.param("host=h password=p@ss/word", id="keywords"),
        pytest.param("app.db", id="a path"),
    ],
)
def test_addresses_that_drivers_read_rightly(given: str) -> None:
    address.check_url(given)


_ENCODE = (
    "the database's address cannot be read: its user name or password holds a character that "
    "must be percent-encoded\n"
    "hint: write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A and a space as %20"
)
_PORT = (
    "the database's address cannot be read: the port is not a number\n"
    "hint: an address reads postgresql://user:password@host:port/database"
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param("postgresql://u:s3@kr1t@h/db", _ENCODE, id="at sign"),
        pytest.param("postgresql://u:s3/kr1t@h/db", _ENCODE, id="slash"),
        pytest.param("postgresql://u:s3#kr1t@h/db", _ENCODE, id="hash"),
        pytest.param("postgresql://u:s3?kr1t@h/db", _ENCODE, id="question mark"),
        pytest.param("postgresql://u:53?kr1t@h/db", _ENCODE, id="digits and a question mark"),
        pytest.param("postgresql://u:s3 kr1t@h/db", _ENCODE, id="space"),
        pytest.param("postgresql://h:s3kr1t/db", _PORT, id="no at sign"),
        pytest.param("postgresql://h1:1,h2:x/db", _PORT, id="the second port"),
        pytest.param("postgresql://[::1]:x/db", _PORT, id="IPv6"),
    ],
)
def test_urls_that_a_driver_would_misread(given: str, message: str) -> None:
    """A driver would take a part of the password for the host, and name it in its error."""
    with pytest.raises(InvalidConfigurationError) as caught:
        address.check_url(given)
    assert str(caught.value) == message
