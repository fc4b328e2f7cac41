# /// script
# requires-python = ">=3.10"
# dependencies = ["flux-migrations"]
# ///
"""A diary that makes its database when it is first used, and brings it up to date ever after.

python diary.py Dear diary, today I met a migration
python diary.py
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import flux
from flux.exceptions import FluxMigrationException

HERE = Path(__file__).resolve().parent
DATABASE = HERE / "diary.db"


def main(words: list[str]) -> None:
    with closing(sqlite3.connect(DATABASE)) as connection:
        try:
            flux.apply(connection, HERE / "migrations")
        except FluxMigrationException as error:
            sys.exit(f"the diary cannot be opened: {error}")
        if words:
            with connection:
                connection.execute("INSERT INTO entries (text) VALUES (?)", (" ".join(words),))
        for written, text in connection.execute("SELECT written, text FROM entries ORDER BY id"):
            print(f"{written}  {text}")


if __name__ == "__main__":
    main(sys.argv[1:])
