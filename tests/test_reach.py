"""What in a script reaches beyond the database that it runs in."""

from __future__ import annotations

import pytest

from flux.backends import postgres_reach, sqlite_reach
from flux.migration import Script


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("CREATE ROLE x", "CREATE ROLE"),
        ("DO $$BEGIN EXECUTE 'CREATE ' || 'ROLE x'; END$$", "CREATE ROLE"),
        ("DO $$DECLARE s text; BEGIN s = 'CREATE ROLE x'; EXECUTE s; END$$", "CREATE ROLE"),
        ("DO $$DECLARE s text DEFAULT 'CREATE ROLE x'; BEGIN EXECUTE s; END$$", "CREATE ROLE"),
        ("DO $$BEGIN FOR s IN SELECT 'DROP ROLE x' LOOP EXECUTE s; END LOOP; END$$", "DROP ROLE"),
        ("DO $$BEGIN EXECUTE 'SELECT 1; CREATE ROLE x'; END$$", "CREATE ROLE"),
        ("DO $$BEGIN RAISE NOTICE 'DROP USER is what we call it'; END$$", None),
        ("COPY t TO E'/srv/t'", "COPY TO a file of the server"),
        ("SELECT dblink_exec('dbname=app', 'DROP TABLE t')", "dblink_exec()"),
        (
            "SELECT pg_create_physical_replication_slot('x')",
            "pg_create_physical_replication_slot()",
        ),
        ("SELECT lo_export(1, '/srv/x')", "lo_export()"),
        ("SELECT dblink FROM t", None),
        ("create /* a */ user x LOGIN", "CREATE USER"),
        ('ALTER USER "x" SET search_path = y', "ALTER USER"),
        ("ALTER ROLE ALL IN DATABASE x SET y = z", "ALTER ROLE"),
        ("DROP ROLE IF EXISTS x", "DROP ROLE"),
        ("DROP GROUP x", "DROP GROUP"),
        ("CREATE USER MAPPING FOR x SERVER y", None),
        ("DROP USER MAPPING FOR x SERVER y", None),
        ("CREATE TABLESPACE x LOCATION '/srv'", "CREATE TABLESPACE"),
        ("CREATE TABLE x (a int) TABLESPACE y", None),
        ("CREATE DATABASE x", "CREATE DATABASE"),
        ("ALTER DATABASE app SET timezone = 'UTC'", "ALTER DATABASE"),
        ("ALTER SYSTEM SET work_mem = '1MB'", "ALTER SYSTEM"),
        ("GRANT a TO b WITH ADMIN OPTION", "GRANT of a role"),
        ('GRANT "on" TO b', "GRANT of a role"),
        ("REVOKE ADMIN OPTION FOR a FROM b", "REVOKE of a role"),
        ("GRANT SELECT ON t TO b", None),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO b", None),
        ("GRANT CONNECT ON DATABASE app TO b", "GRANT ON DATABASE"),
        ("REVOKE ALL ON DATABASE app FROM PUBLIC", "REVOKE ON DATABASE"),
        ("GRANT CREATE ON TABLESPACE x TO b", "GRANT ON TABLESPACE"),
        ("GRANT SET ON PARAMETER work_mem TO b", "GRANT ON PARAMETER"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO b", None),
        ("COMMENT ON ROLE x IS 'y'", "COMMENT ON ROLE"),
        ("COMMENT ON DATABASE x IS 'y'", "COMMENT ON DATABASE"),
        ("COMMENT ON TABLE x IS 'ON DATABASE'", None),
        ("SECURITY LABEL FOR p ON ROLE x IS 'y'", "SECURITY LABEL ON ROLE"),
        ("SECURITY LABEL ON TABLE x IS 'y'", None),
        ("REASSIGN OWNED BY x TO y", "REASSIGN OWNED"),
        ("DROP OWNED BY x", "DROP OWNED"),
        ("CREATE SUBSCRIPTION x CONNECTION '' PUBLICATION y", "CREATE SUBSCRIPTION"),
        ("DROP SUBSCRIPTION x", "DROP SUBSCRIPTION"),
        ("CREATE PUBLICATION x", None),
        ("COPY t TO '/srv/x'", "COPY TO a file of the server"),
        ("COPY (SELECT 'a' FROM b) TO $$/srv/x$$", "COPY TO a file of the server"),
        ("COPY t FROM PROGRAM 'curl'", "COPY FROM PROGRAM"),
        ("COPY t (a, b) TO PROGRAM 'cat'", "COPY TO PROGRAM"),
        ("COPY t FROM '/srv/x'", None),
        ("COPY t TO STDOUT", None),
        ("INSERT INTO t VALUES ('CREATE ROLE x')", None),
        ("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'CREATE ROLE x'", None),
        ("SELECT role FROM roles", None),
        ("DO $$ BEGIN CREATE ROLE x; END $$", "CREATE ROLE"),
        (
            "DO LANGUAGE plpgsql $a$BEGIN IF NOT EXISTS (SELECT FROM pg_roles) THEN\n"
            "CREATE USER x; END IF; END$a$",
            "CREATE USER",
        ),
        ("DO 'BEGIN EXECUTE ''CREATE ROLE x''; END'", "CREATE ROLE"),
        ("DO $$BEGIN EXECUTE format('GRANT %I TO %I', a, b); END$$", "GRANT of a role"),
        ("DO $$BEGIN EXECUTE format('GRANT SELECT ON %I TO %I', a, b); END$$", None),
        (
            "DO $$BEGIN EXECUTE 'GRANT SELECT ' || x || ' ON ' || y || ' TO ' || z; END$$",
            None,
        ),
        (
            "DO $$BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET a = b'; END$$",
            "ALTER DATABASE",
        ),
        ("DO $$DECLARE s text := 'DROP ROLE x'; BEGIN EXECUTE s; END$$", "DROP ROLE"),
        ("DO $$BEGIN FOR r IN SELECT 1 LOOP DROP ROLE x; END LOOP; END$$", "DROP ROLE"),
        ("DO $$BEGIN RAISE NOTICE 'CREATE ROLE x'; ALTER TABLE t ADD a int; END$$", None),
        ("DO $$BEGIN PERFORM log('CREATE ROLE x'::text); END$$", None),
        ("DO $$BEGIN -- CREATE ROLE x\nNULL; END$$", None),
        ("DO $$BEGIN 'unterminated; END$$", None),
    ],
)
def test_on_postgres(sql: str, what: str | None) -> None:
    assert postgres_reach.reach_of(sql) == what


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("ATTACH 'other.db' AS other", "ATTACH"),
        ("attach database 'other.db' AS other", "ATTACH"),
        ('ATTACH "other.db" AS other', "ATTACH"),
        ("ATTACH 'a' || 'b' AS other", "ATTACH"),
        ("ATTACH '' || 'b' AS other", "ATTACH"),
        ("ATTACH ':memory:' AS other", None),
        ("ATTACH DATABASE '' AS other", None),
        ("VACUUM INTO 'copy.db'", "VACUUM INTO"),
        ("VACUUM main INTO 'copy.db'", "VACUUM INTO"),
        ("VACUUM", None),
        ("INSERT INTO t VALUES ('ATTACH')", None),
    ],
)
def test_on_sqlite(sql: str, what: str | None) -> None:
    assert sqlite_reach.reach_of(sql) == what


def test_a_problem_says_where_and_what_to_do() -> None:
    text = "CREATE TABLE t (a int);\n\n  CREATE ROLE x;\nDROP ROLE y;\n"
    first, second = postgres_reach.find_reaching(Script.from_text(text, "a.sql"))
    assert str(first) == (
        "a.sql:3:3: CREATE ROLE reaches beyond the database, to the whole server\n"
        "    3 |   CREATE ROLE x;\n"
        "      |   ^\n"
        "hint: where nothing on the server matters, say so: --throw-away-server, or "
        "throw_away_server = true in the configuration"
    )
    assert (second.kind, second.ids) == ("reaches-beyond", ())


def test_what_cannot_be_read_is_told_elsewhere() -> None:
    for find in (postgres_reach.find_reaching, sqlite_reach.find_reaching):
        assert find(Script.from_text("CREATE ROLE 'x", "a.sql")) == []
        assert find(Script("a.py", "0" * 64, function=print)) == []
