"""A floor: apply SQL files to SQLite as it wants tables to be rebuilt.

Foreign keys are off around each transaction, and are checked before it commits.
"""

import os
import sqlite3
import sys
from hashlib import sha256

connection = sqlite3.connect(sys.argv[1].removeprefix("sqlite:///"), isolation_level=None)
connection.execute(
    "CREATE TABLE IF NOT EXISTS history (id TEXT NOT NULL PRIMARY KEY, hash TEXT NOT NULL, "
    "applied_at TEXT NOT NULL)"
)
applied = dict(connection.execute("SELECT id, hash FROM history").fetchall())
for name in sorted(os.listdir()):
    if name.endswith(".undo.sql") or not name.endswith(".sql") or name[:-4] in applied:
        continue
    with open(name, encoding="utf-8") as file:
        text = file.read()
    hash = sha256(text.rstrip().encode()).hexdigest()
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.executescript(f"BEGIN IMMEDIATE;\n{text}")
    if connection.execute("PRAGMA foreign_key_check").fetchall():
        sys.exit(f"{name} leaves rows that refer to nothing")
    connection.execute(
        "INSERT INTO history VALUES (?, ?, strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'))",
        (name[:-4], hash),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA foreign_keys = ON")
connection.close()
