"""A floor: read the history on PostgreSQL."""

import sys

import psycopg2

connection = psycopg2.connect(sys.argv[1])
cursor = connection.cursor()
cursor.execute("SELECT id, hash, applied_at FROM history")
print(*cursor.fetchall(), sep="\n")
connection.close()
