"""A floor: undo the newest migrations on PostgreSQL, each in a transaction of its own."""

import sys

import psycopg2

connection = psycopg2.connect(sys.argv[1])
connection.autocommit = True
cursor = connection.cursor()
cursor.execute("SELECT id FROM history")
for id in sorted((id for (id,) in cursor.fetchall()), reverse=True)[: int(sys.argv[2])]:
    with open(f"{id}.undo.sql", encoding="utf-8") as file:
        text = file.read()
    cursor.execute(f"BEGIN;\n{text};\nDELETE FROM history WHERE id = '{id}';\nCOMMIT")
connection.close()
