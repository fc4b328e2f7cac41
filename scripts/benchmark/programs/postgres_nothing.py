"""A floor: see that nothing is to be applied to PostgreSQL, by the hash of every file."""

import os
import sys
from hashlib import sha256

import psycopg2


def nothing_to_do(url: str) -> None:
    """Read the files of the working directory and the history; they must agree."""
    here = {}
    for name in sorted(os.listdir()):
        if name.endswith(".sql") and not name.endswith(".undo.sql"):
            with open(name, encoding="utf-8") as file:
                here[name[:-4]] = sha256(file.read().rstrip().encode()).hexdigest()
    connection = psycopg2.connect(url)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SELECT id, hash FROM history")
    if dict(cursor.fetchall()) != here:
        sys.exit("there is something to do")
    connection.close()


if __name__ == "__main__":
    nothing_to_do(sys.argv[1])
