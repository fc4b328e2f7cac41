"""Files that flux writes as a whole and reads again: the schema file, and reports."""

from __future__ import annotations

from flux.exceptions import InvalidConfigurationError, Location


def write(path: str, text: str) -> None:
    """Write a text file, in place of the one that is there.

    Raises `InvalidConfigurationError` where that cannot be.
    """
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise InvalidConfigurationError(
            f"cannot be written: {error.strerror}",
            location=Location(path),
            hint="make its directory first" if missing else None,
        ) from error


def read(path: str) -> str | None:
    """The text of a file; None where it is not there. Read-only.

    Raises `InvalidConfigurationError` where it cannot be read.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfigurationError(
            f"cannot be read: {error}", location=Location(path)
        ) from error
