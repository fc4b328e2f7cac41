"""A floor: read the history on SQLite."""

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1].removeprefix("sqlite:///"))
print(*connection.execute("SELECT id, hash, applied_at FROM history").fetchall(), sep="\n")
connection.close()
