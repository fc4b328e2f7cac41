"""A floor: apply SQL files to PostgreSQL, each with its hash in a transaction of its own."""

import os
import sys
from hashlib import sha256

import psycopg2

connection = psycopg2.connect(sys.argv[1])
connection.autocommit = True
cursor = connection.cursor()
cursor.execute(
    "CREATE TABLE IF NOT EXISTS history (id text PRIMARY KEY, hash text NOT NULL, "
    "applied_at timestamptz NOT NULL DEFAULT clock_timestamp()); SELECT id, hash FROM history"
)
applied = dict(cursor.fetchall())
for name in sorted(os.listdir()):
    if name.endswith(".undo.sql") or not name.endswith(".sql") or name[:-4] in applied:
        continue
    with open(name, encoding="utf-8") as file:
        text = file.read()
    hash = sha256(text.rstrip().encode()).hexdigest()
    row = f"INSERT INTO history (id, hash) VALUES ('{name[:-4]}', '{hash}')"
    cursor.execute(f"BEGIN;\n{text};\n{row};\nCOMMIT")
connection.close()
