"""Fingerprints of PostgreSQL: every change is seen as what it is, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pytest

from flux import FluxConfig
from flux.backends.postgres import PostgresBackend
from flux.exceptions import DatabaseUnavailableError
from tests import driver
from tests.catalogs import differences, postgres_backend, postgres_fingerprint, taken_back
from tests.postgres_server import Postgres, PostgresServer, own_database
from tests.wire import counting_proxy


@pytest.fixture(scope="module")
def roles(server: PostgresServer) -> Iterator[None]:
    """Roles to own things and to be granted things; the databases go before them."""
    with closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute('CREATE ROLE alice; CREATE ROLE "Bob"')
        yield
        cursor.execute('DROP ROLE alice; DROP ROLE "Bob"')


@pytest.fixture
def database(roles: None, postgres_database: Postgres) -> Postgres:
    """A database of the test's own, beside the roles."""
    return postgres_database


class Change(NamedTuple):
    """What is made first, what is changed then, and how the difference is told."""

    make: str
    change: str
    found: list[str]


_T = "CREATE TABLE t (a int, b text);\n"
_TRIGGER = (
    _T + "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';\n"
    "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();\n"
)
_FUNCTION = "CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1';\n"
_PARTITIONED = (
    "CREATE TABLE p (a int) PARTITION BY LIST (a);\nCREATE TABLE t PARTITION OF p DEFAULT;\n"
)
_SEQUENCE = "CREATE SEQUENCE q;\n"
_VIEW = _T + "CREATE VIEW v AS SELECT a FROM t;\n"
_UNIQUE = "CREATE TABLE t (a int CONSTRAINT u UNIQUE);\n"
_FOREIGN_KEY = (
    "CREATE TABLE p (a int PRIMARY KEY);\n"
    "CREATE TABLE t (a int CONSTRAINT k REFERENCES p ON DELETE CASCADE);\n"
)
_INDEX = _T + "CREATE INDEX i ON t (a);\n"
_POLICY = _T + "CREATE POLICY o ON t USING (a > 1);\n"
_WRAPPER = "CREATE FOREIGN DATA WRAPPER w;\nCREATE SERVER s FOREIGN DATA WRAPPER w;\n"
_PUBLICATION = _T + "CREATE PUBLICATION p FOR TABLE t;\n"

_ADDITION = (
    "CREATE FUNCTION l(int, text) RETURNS bool LANGUAGE sql AS 'SELECT true';\n"
    "CREATE FUNCTION c(int, text) RETURNS int LANGUAGE sql AS 'SELECT 1';\n"
    "CREATE OPERATOR <<< (leftarg = int, rightarg = text, function = l);\n"
)
_SECRET_OPTIONS = (
    _WRAPPER + "ALTER SERVER s OPTIONS (password 'x');\n"
    "CREATE USER MAPPING FOR alice SERVER s OPTIONS (pw 'x');\n"
)

CHANGES = {
    # Schemas, tables
    "schema": Change("", "CREATE SCHEMA s", ["extra schema s"]),
    "schema owner": Change(
        "CREATE SCHEMA s", "ALTER SCHEMA s OWNER TO alice", ["changed schema s"]
    ),
    "quoted names": Change(
        'CREATE SCHEMA "S.1"; CREATE TABLE "S.1"."A b" ("C d" int)',
        'ALTER TABLE "S.1"."A b" ALTER "C d" SET NOT NULL',
        ['changed column "C d"'],
    ),
    "table": Change("", _T + "COMMENT ON TABLE t IS 'x'", ["extra table public.t"]),
    "table renamed": Change(
        _T, "ALTER TABLE t RENAME TO u", ["missing table public.t", "extra table public.u"]
    ),
    "table owner": Change(_T, "ALTER TABLE t OWNER TO alice", ["changed table public.t"]),
    "unlogged": Change(_T, "ALTER TABLE t SET UNLOGGED", ["changed table public.t"]),
    "storage parameter": Change(
        _T, "ALTER TABLE t SET (fillfactor = 70)", ["changed table public.t"]
    ),
    "storage parameter of toast": Change(
        _T, "ALTER TABLE t SET (toast.autovacuum_enabled = off)", ["changed table public.t"]
    ),
    "row level security": Change(
        _T, "ALTER TABLE t ENABLE ROW LEVEL SECURITY", ["changed table public.t"]
    ),
    "row level security forced": Change(
        _T, "ALTER TABLE t FORCE ROW LEVEL SECURITY", ["changed table public.t"]
    ),
    "replica identity": Change(
        _T, "ALTER TABLE t REPLICA IDENTITY FULL", ["changed table public.t"]
    ),
    "replica identity by an index": Change(
        "CREATE TABLE t (a int NOT NULL); CREATE UNIQUE INDEX i ON t (a)",
        "ALTER TABLE t REPLICA IDENTITY USING INDEX i",
        ["changed index i"],
    ),
    "clustered": Change(_INDEX, "ALTER TABLE t CLUSTER ON i", ["changed index i"]),
    "inheritance": Change(
        _T + "CREATE TABLE p (a int)", "ALTER TABLE t INHERIT p", ["changed table public.t"]
    ),
    "inherited alone, or of its own, too": Change(
        "CREATE TABLE p (a int, CONSTRAINT c CHECK (a > 1)); CREATE TABLE t () INHERITS (p)",
        "DROP TABLE t; CREATE TABLE t (a int, CONSTRAINT c CHECK (a > 1)) INHERITS (p)",
        ["changed column a", "changed constraint c"],
    ),
    "of a type": Change(
        "CREATE TYPE y AS (a int); CREATE TABLE t (a int)",
        "ALTER TABLE t OF y",
        ["changed table public.t"],
    ),
    "partition detached": Change(
        _PARTITIONED, "ALTER TABLE p DETACH PARTITION t", ["changed table public.t"]
    ),
    "partition's bound": Change(
        _PARTITIONED,
        "ALTER TABLE p DETACH PARTITION t; "
        "ALTER TABLE p ATTACH PARTITION t FOR VALUES IN (1)",
        ["changed table public.t"],
    ),
    "partition key": Change(
        _PARTITIONED,
        "DROP TABLE p; CREATE TABLE p (a int) PARTITION BY RANGE (a); "
        "CREATE TABLE t PARTITION OF p DEFAULT",
        ["changed table public.p"],
    ),
    # Columns
    "column": Change(_T, "ALTER TABLE t ADD c int", ["extra column c"]),
    "column renamed": Change(
        _T, "ALTER TABLE t RENAME a TO c", ["missing column a", "extra column c"]
    ),
    "type": Change(_T, "ALTER TABLE t ALTER a TYPE bigint", ["changed column a"]),
    "type's modifier": Change(_T, "ALTER TABLE t ALTER b TYPE varchar(9)", ["changed column b"]),
    "not null": Change(_T, "ALTER TABLE t ALTER a SET NOT NULL", ["changed column a"]),
    "default": Change(_T, "ALTER TABLE t ALTER b SET DEFAULT 'x'", ["changed column b"]),
    "default of null": Change(_T, "ALTER TABLE t ALTER b SET DEFAULT NULL", []),
    "collation": Change(_T, 'ALTER TABLE t ALTER b TYPE text COLLATE "C"', ["changed column b"]),
    "identity": Change(
        "CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY)",
        "ALTER TABLE t ALTER a SET GENERATED BY DEFAULT",
        ["changed column a"],
    ),
    "identity's sequence": Change(
        "CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY)",
        "ALTER TABLE t ALTER a SET INCREMENT 2",
        ["changed sequence public.t_a_seq"],
    ),
    "identity gone": Change(
        "CREATE TABLE t (a int GENERATED ALWAYS AS IDENTITY)",
        "ALTER TABLE t ALTER a DROP IDENTITY",
        ["changed column a", "missing sequence public.t_a_seq"],
    ),
    "generated": Change(
        "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) STORED)",
        "ALTER TABLE t ALTER b DROP EXPRESSION",
        ["changed column b"],
    ),
    "storage": Change(_T, "ALTER TABLE t ALTER b SET STORAGE EXTERNAL", ["changed column b"]),
    "compression": Change(_T, "ALTER TABLE t ALTER b SET COMPRESSION pglz", ["changed column b"]),
    "statistics target": Change(
        _T, "ALTER TABLE t ALTER b SET STATISTICS 10", ["changed column b"]
    ),
    "column option": Change(
        _T, "ALTER TABLE t ALTER b SET (n_distinct = 5)", ["changed column b"]
    ),
    # Constraints
    "primary key": Change(
        "CREATE TABLE t (a int NOT NULL)", "ALTER TABLE t ADD PRIMARY KEY (a)",
        ["extra constraint t_pkey"],
    ),
    "check": Change(
        _T + "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 1)",
        "ALTER TABLE t DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (a > 2)",
        ["changed constraint c"],
    ),
    "constraint validated": Change(
        _T + "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 1) NOT VALID",
        "ALTER TABLE t VALIDATE CONSTRAINT c",
        ["changed constraint c"],
    ),
    "deferrable": Change(
        _FOREIGN_KEY, "ALTER TABLE t ALTER CONSTRAINT k DEFERRABLE", ["changed constraint k"]
    ),
    "foreign key's action": Change(
        _FOREIGN_KEY,
        "ALTER TABLE t DROP CONSTRAINT k, ADD CONSTRAINT k FOREIGN KEY (a) REFERENCES p",
        ["changed constraint k"],
    ),
    "foreign key disabled": Change(
        _FOREIGN_KEY,
        "ALTER TABLE t DISABLE TRIGGER ALL",
        [
            'extra internal trigger "RI_FKey_check_ins" of public.t.k',
            'extra internal trigger "RI_FKey_check_upd" of public.t.k',
        ],
    ),
    "foreign key disabled in the other table": Change(
        _FOREIGN_KEY + "ALTER TABLE t DISABLE TRIGGER ALL",
        "ALTER TABLE t ENABLE TRIGGER ALL; ALTER TABLE p DISABLE TRIGGER ALL",
        [
            'extra internal trigger "RI_FKey_cascade_del" of public.t.k',
            'extra internal trigger "RI_FKey_noaction_upd" of public.t.k',
            'missing internal trigger "RI_FKey_check_ins" of public.t.k',
            'missing internal trigger "RI_FKey_check_upd" of public.t.k',
        ],
    ),
    "foreign key always enabled": Change(
        _FOREIGN_KEY + "ALTER TABLE t DISABLE TRIGGER ALL",
        "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE t ENABLE ALWAYS TRIGGER %I', tgname) "
        "FROM pg_trigger WHERE tgfoid = '\"RI_FKey_check_ins\"'::regproc); END $$",
        ['changed internal trigger "RI_FKey_check_ins" of public.t.k'],
    ),
    "foreign key of a partition disabled": Change(
        _PARTITIONED + "CREATE TABLE o (a int PRIMARY KEY); ALTER TABLE p ADD CONSTRAINT k "
        "FOREIGN KEY (a) REFERENCES o",
        "ALTER TABLE t DISABLE TRIGGER ALL",
        [
            f'extra internal trigger "RI_FKey_check_{event}" of public.t '
            "FOREIGN KEY (a) REFERENCES public.o(a)"
            for event in ("ins", "upd")
        ],
    ),
    "option of a constraint's index": Change(
        _UNIQUE, "ALTER INDEX u SET (fillfactor = 70)", ["changed constraint u"]
    ),
    "constraint to index": Change(
        _UNIQUE,
        "ALTER TABLE t DROP CONSTRAINT u; CREATE UNIQUE INDEX u ON t (a)",
        ["missing constraint u", "extra index u"],
    ),
    "exclusion": Change(
        "CREATE TABLE t (a int4range)",
        "ALTER TABLE t ADD CONSTRAINT x EXCLUDE USING gist (a WITH &&)",
        ["extra constraint x"],
    ),
    "comment on a constraint": Change(
        _UNIQUE, "COMMENT ON CONSTRAINT u ON t IS 'x'", ["extra comment on constraint u"]
    ),
    # Indexes
    "index": Change(_T, "CREATE INDEX i ON t (a)", ["extra index i"]),
    "index's order": Change(
        _INDEX, "DROP INDEX i; CREATE INDEX i ON t (a DESC)", ["changed index i"]
    ),
    "index's predicate": Change(
        _INDEX, "DROP INDEX i; CREATE INDEX i ON t (a) WHERE a > 1", ["changed index i"]
    ),
    "unique index": Change(
        _INDEX, "DROP INDEX i; CREATE UNIQUE INDEX i ON t (a)", ["changed index i"]
    ),
    "index's parameter": Change(
        _INDEX, "ALTER INDEX i SET (fillfactor = 70)", ["changed index i"]
    ),
    "index of a partition attached": Change(
        _PARTITIONED + "CREATE INDEX i ON ONLY p (a); CREATE INDEX j ON t (a)",
        "ALTER INDEX i ATTACH PARTITION j",
        ["changed index i", "changed index j"],
    ),
    "comment on an index": Change(
        _INDEX, "COMMENT ON INDEX i IS 'x'", ["extra comment on index i"]
    ),
    "comment on a constraint's index": Change(
        _UNIQUE, "COMMENT ON INDEX u IS 'x'", ["extra comment on index u"]
    ),
    "statistics target of an index": Change(
        _T + "CREATE INDEX i ON t (lower(b))",
        "ALTER INDEX i ALTER COLUMN 1 SET STATISTICS 500",
        ["changed index i"],
    ),
    # Views, sequences
    "view": Change(
        _VIEW, "CREATE OR REPLACE VIEW v AS SELECT a FROM t WHERE a > 1",
        ["changed view public.v"],
    ),
    "view's option": Change(
        _VIEW, "ALTER VIEW v SET (security_barrier = true)", ["changed view public.v"]
    ),
    "view's column": Change(
        _VIEW, "CREATE OR REPLACE VIEW v AS SELECT a, b FROM t",
        ["changed view public.v", "extra column b"],
    ),
    "materialized view": Change(
        _T + "CREATE MATERIALIZED VIEW v AS SELECT a FROM t",
        "CREATE INDEX i ON v (a)",
        ["extra index i"],
    ),
    "materialized view without data": Change(
        _T + "CREATE MATERIALIZED VIEW v AS SELECT a FROM t",
        "REFRESH MATERIALIZED VIEW v WITH NO DATA",
        ["changed materialized view public.v"],
    ),
    "sequence": Change(_SEQUENCE, "ALTER SEQUENCE q CYCLE", ["changed sequence public.q"]),
    "sequence's type": Change(
        _SEQUENCE, "ALTER SEQUENCE q AS int", ["changed sequence public.q"]
    ),
    "sequence owned": Change(
        _T + _SEQUENCE, "ALTER SEQUENCE q OWNED BY t.a", ["changed sequence public.q"]
    ),
    # Functions
    "function": Change("", _FUNCTION, ["extra function public.f(integer)"]),
    "function's body": Change(
        _FUNCTION,
        "CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT 2'",
        ["changed function public.f(integer)"],
    ),
    "volatility": Change(
        _FUNCTION, "ALTER FUNCTION f STABLE", ["changed function public.f(integer)"]
    ),
    "security definer": Change(
        _FUNCTION, "ALTER FUNCTION f SECURITY DEFINER", ["changed function public.f(integer)"]
    ),
    "function's setting": Change(
        _FUNCTION, "ALTER FUNCTION f SET work_mem = '1MB'", ["changed function public.f(integer)"]
    ),
    "overloaded": Change(
        _FUNCTION,
        "CREATE FUNCTION f(a text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ["extra function public.f(text)"],
    ),
    "procedure": Change(
        "", "CREATE PROCEDURE r() LANGUAGE sql AS 'SELECT 1'", ["extra procedure public.r()"]
    ),
    "aggregate": Change(
        "CREATE AGGREGATE g(int) (sfunc = int4pl, stype = int)",
        "CREATE OR REPLACE AGGREGATE g(int) (sfunc = int4pl, stype = int, initcond = '1')",
        ["changed aggregate public.g(integer)"],
    ),
    "aggregate's size": Change(
        "CREATE AGGREGATE g(int) (sfunc = int4pl, stype = int, msfunc = int4pl, "
        "minvfunc = int4mi, mstype = int)",
        "CREATE OR REPLACE AGGREGATE g(int) (sfunc = int4pl, stype = int, msfunc = int4pl, "
        "minvfunc = int4mi, mstype = int, msspace = 9)",
        ["changed aggregate public.g(integer)"],
    ),
    "depends on an extension": Change(
        _FUNCTION,
        "ALTER FUNCTION f DEPENDS ON EXTENSION plpgsql",
        ["extra dependence on function public.f(integer) on extension plpgsql"],
    ),
    "function among the system's": Change(
        "",
        "CREATE FUNCTION pg_catalog.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ["extra function pg_catalog.f()"],
    ),
    # Triggers, rules, policies, statistics
    "trigger": Change(_TRIGGER, "DROP TRIGGER g ON t", ["missing trigger g"]),
    "trigger disabled": Change(
        _TRIGGER, "ALTER TABLE t DISABLE TRIGGER g", ["changed trigger g"]
    ),
    "trigger always": Change(
        _TRIGGER, "ALTER TABLE t ENABLE ALWAYS TRIGGER g", ["changed trigger g"]
    ),
    "trigger's event": Change(
        _TRIGGER,
        "CREATE OR REPLACE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        ["changed trigger g"],
    ),
    "rule": Change(
        _T, "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", ["extra rule r"]
    ),
    "policy": Change(_POLICY, "ALTER POLICY o ON t USING (a > 2)", ["changed policy o"]),
    "policy's roles": Change(_POLICY, 'ALTER POLICY o ON t TO "Bob"', ["changed policy o"]),
    "policy restrictive": Change(
        _POLICY,
        "DROP POLICY o ON t; CREATE POLICY o ON t AS RESTRICTIVE USING (a > 1)",
        ["changed policy o"],
    ),
    "statistics": Change(
        _T, "CREATE STATISTICS s ON a, b FROM t", ["extra statistics public.s"]
    ),
    "kind of statistics": Change(
        _T + "CREATE STATISTICS s ON a, b FROM t",
        "DROP STATISTICS s; CREATE STATISTICS s (mcv) ON a, b FROM t",
        ["changed statistics public.s"],
    ),
    "statistics of an expression": Change(
        _T + "CREATE STATISTICS s ON a, lower(b) FROM t",
        "DROP STATISTICS s; CREATE STATISTICS s ON a, upper(b) FROM t",
        ["changed statistics public.s"],
    ),
    "event trigger": Change(
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
        "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()",
        "ALTER EVENT TRIGGER e DISABLE",
        ["changed event trigger e"],
    ),
    # Types
    "enum": Change("", "CREATE TYPE m AS ENUM ('a')", ["extra type public.m"]),
    "enum's order": Change(
        "CREATE TYPE m AS ENUM ('a', 'b')",
        "DROP TYPE m; CREATE TYPE m AS ENUM ('b', 'a')",
        ["changed type public.m"],
    ),
    "enum's value": Change(
        "CREATE TYPE m AS ENUM ('a', 'b')",
        "ALTER TYPE m ADD VALUE 'c' BEFORE 'b'",
        ["changed type public.m"],
    ),
    "composite": Change(
        "CREATE TYPE c AS (a int)", "ALTER TYPE c ADD ATTRIBUTE b text", ["extra attribute b"]
    ),
    "composite's order": Change(
        "CREATE TYPE c AS (a int, b int)",
        "DROP TYPE c; CREATE TYPE c AS (b int, a int)",
        ["changed attribute a", "changed attribute b"],
    ),
    "domain": Change(
        "CREATE DOMAIN d AS text", "ALTER DOMAIN d SET NOT NULL", ["changed domain public.d"]
    ),
    "domain's default": Change(
        "CREATE DOMAIN d AS text", "ALTER DOMAIN d SET DEFAULT 'x'", ["changed domain public.d"]
    ),
    "domain's constraint": Change(
        "CREATE DOMAIN d AS text",
        "ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE <> '') NOT VALID",
        ["extra constraint c"],
    ),
    "range": Change(
        "", "CREATE TYPE r AS RANGE (subtype = float8)", ["extra type public.r"]
    ),
    # In no table
    "extension": Change(
        "", "DROP EXTENSION plpgsql", ["missing extension plpgsql"]
    ),
    "collation made": Change(
        "", "CREATE COLLATION c (locale = 'C')", ["extra collation public.c"]
    ),
    "cast": Change(
        "CREATE TYPE m AS ENUM ('a')",
        "CREATE CAST (text AS m) WITH INOUT",
        ["extra cast (text AS public.m)"],
    ),
    "operator": Change(
        "",
        "CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq)",
        ["extra operator public.===(integer,integer)"],
    ),
    "operator class": Change(
        "",
        "CREATE OPERATOR CLASS c FOR TYPE int USING btree AS FUNCTION 1 btint4cmp(int, int)",
        ["extra operator class public.c using btree", "extra operator family public.c using btree"],
    ),
    "operator added to a family of the system": Change(
        _ADDITION,
        "ALTER OPERATOR FAMILY integer_ops USING btree ADD OPERATOR 1 <<< (int, text)",
        ["extra operator family pg_catalog.integer_ops using btree"],
    ),
    "function added to a family of the system": Change(
        _ADDITION + "ALTER OPERATOR FAMILY integer_ops USING btree ADD OPERATOR 1 <<< (int, text)",
        "ALTER OPERATOR FAMILY integer_ops USING btree ADD FUNCTION 1 (int, text) c(int, text)",
        ["changed operator family pg_catalog.integer_ops using btree"],
    ),
    "conversion": Change(
        "",
        "CREATE CONVERSION c FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        ["extra conversion public.c"],
    ),
    "transform": Change(
        "CREATE FUNCTION f(internal) RETURNS internal LANGUAGE internal IMMUTABLE "
        "AS 'varchar_support'",
        "CREATE TRANSFORM FOR int LANGUAGE plpgsql (FROM SQL WITH FUNCTION f(internal))",
        ["extra transform for integer language plpgsql"],
    ),
    "text search parser": Change(
        "",
        "CREATE TEXT SEARCH PARSER p (START = prsd_start, GETTOKEN = prsd_nexttoken, "
        "END = prsd_end, LEXTYPES = prsd_lextype)",
        ["extra text search parser public.p"],
    ),
    "text search template": Change(
        "",
        "CREATE TEXT SEARCH TEMPLATE t (LEXIZE = dsimple_lexize)",
        ["extra text search template public.t"],
    ),
    "subscription": Change(
        "CREATE SUBSCRIPTION s CONNECTION 'password=x' PUBLICATION p WITH (connect = false)",
        "ALTER SUBSCRIPTION s SET PUBLICATION q WITH (refresh = false)",
        ["changed subscription s"],
    ),
    "text search": Change(
        "CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple); "
        "CREATE TEXT SEARCH CONFIGURATION c (COPY = simple)",
        "ALTER TEXT SEARCH CONFIGURATION c ALTER MAPPING FOR word WITH d",
        ["changed text search configuration public.c"],
    ),
    "text search dictionary": Change(
        "CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple)",
        "ALTER TEXT SEARCH DICTIONARY d (accept = false)",
        ["changed text search dictionary public.d"],
    ),
    "publication": Change(
        _PUBLICATION, "ALTER PUBLICATION p SET (publish = 'insert')", ["changed publication p"]
    ),
    "published table": Change(
        _PUBLICATION, "ALTER PUBLICATION p DROP TABLE t", ["missing table public.t"]
    ),
    "server": Change(
        _WRAPPER, "ALTER SERVER s OPTIONS (host 'h')", ["changed server s"]
    ),
    "user mapping": Change(
        _WRAPPER, "CREATE USER MAPPING FOR alice SERVER s", ["extra user mapping for alice"]
    ),
    "a server's secret": Change(
        _SECRET_OPTIONS, "ALTER SERVER s OPTIONS (SET password 'y')", ["changed server s"]
    ),
    "a user's secret": Change(
        _SECRET_OPTIONS,
        "ALTER USER MAPPING FOR alice SERVER s OPTIONS (SET pw 'y')",
        ["changed user mapping for alice"],
    ),
    "foreign table": Change(
        _WRAPPER + "CREATE FOREIGN TABLE f (a int) SERVER s",
        "ALTER FOREIGN TABLE f ALTER a OPTIONS (x 'y')",
        ["changed column a"],
    ),
    # Grants
    "grant": Change(_T, "GRANT SELECT ON t TO alice", ["extra grant on table public.t to alice"]),
    "grant option": Change(
        _T + "GRANT SELECT ON t TO alice",
        "GRANT SELECT ON t TO alice WITH GRANT OPTION",
        ["changed grant on table public.t to alice"],
    ),
    "grant to all": Change(
        _T, "GRANT SELECT ON t TO PUBLIC", ["extra grant on table public.t to public"]
    ),
    "grant on a column": Change(
        _T, 'GRANT UPDATE (a) ON t TO "Bob"', ['extra grant on column a to "Bob"']
    ),
    "owner's right revoked": Change(
        _T, "REVOKE DELETE ON t FROM postgres", ["extra grant on table public.t to CURRENT_USER"]
    ),
    "default right revoked": Change(
        _FUNCTION,
        "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC",
        ["extra grant on function public.f(integer) to public"],
    ),
    "grant on a schema": Change(
        "CREATE SCHEMA s", "GRANT USAGE ON SCHEMA s TO alice", ["extra grant on schema s to alice"]
    ),
    "grant on a sequence": Change(
        _SEQUENCE, "GRANT USAGE ON SEQUENCE q TO alice",
        ["extra grant on sequence public.q to alice"],
    ),
    "grant on a type": Change(
        "CREATE TYPE m AS ENUM ('a')", "GRANT USAGE ON TYPE m TO alice",
        ["extra grant on type public.m to alice"],
    ),
    "default privileges": Change(
        "",
        "ALTER DEFAULT PRIVILEGES FOR ROLE alice GRANT SELECT ON TABLES TO PUBLIC",
        ["extra default privileges of alice on tables"],
    ),
    "default privileges in a schema": Change(
        "ALTER DEFAULT PRIVILEGES FOR ROLE alice IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE alice IN SCHEMA public GRANT INSERT ON TABLES TO PUBLIC",
        [
            "changed grant on default privileges of alice in schema public on tables to public"
        ],
    ),
    "grant on a function of the system": Change(
        "",
        "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC",
        ["extra grant on function pg_catalog.pg_sleep(double precision) to public"],
    ),
    "grant on a function of the system that not all have": Change(
        "",
        "GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO alice",
        ["extra grant on function pg_catalog.pg_ls_dir(text) to alice"],
    ),
    "grant on a table of the system": Change(
        "",
        "GRANT SELECT ON pg_authid TO alice;"
        "GRANT SELECT (subconninfo) ON pg_subscription TO alice",
        [
            "extra grant on column pg_catalog.pg_subscription.subconninfo to alice",
            "extra grant on table pg_catalog.pg_authid to alice",
        ],
    ),
    "grant on a language": Change(
        "",
        "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
        ["extra grant on language plpgsql to public"],
    ),
    "grant on what an extension has made": Change(
        _FUNCTION + "ALTER EXTENSION plpgsql ADD FUNCTION f",
        "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC",
        ["extra grant on function public.f(integer) to public"],
    ),
    # Comments
    "comment on a table": Change(
        _T, "COMMENT ON TABLE t IS 'x'", ["extra comment on table public.t"]
    ),
    "comment on a column": Change(
        _T + "COMMENT ON COLUMN t.a IS 'x'", "COMMENT ON COLUMN t.a IS 'y'",
        ["changed comment on column a"],
    ),
    "comment on a schema": Change(
        "CREATE SCHEMA s", "COMMENT ON SCHEMA s IS 'x'", ["extra comment on schema s"]
    ),
    "comment on a function": Change(
        _FUNCTION, "COMMENT ON FUNCTION f IS 'x'",
        ["extra comment on function public.f(integer)"],
    ),
    "comment on a type": Change(
        "CREATE TYPE c AS (a int)", "COMMENT ON TYPE c IS 'x'", ["extra comment on type public.c"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def backend(server: PostgresServer, roles: None) -> Iterator[PostgresBackend]:
    """A database for many tests, of which each takes back what it has made: the cheap one."""
    with own_database(server) as own:
        backend = postgres_backend(own.url)
        with backend.opened():
            yield backend


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen_as_what_it_is(backend: PostgresBackend, change: Change) -> None:
    with taken_back(backend) as run:
        run(change.make)
        before = backend.fingerprint()
        run(change.change)
        assert differences(before, backend.fingerprint()) == change.found


LATER_CHANGES = {
    "nulls not distinct": (
        15,
        _UNIQUE,
        "ALTER TABLE t DROP CONSTRAINT u, ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (a)",
        ["changed constraint u"],
    ),
    "security invoker": (
        15,
        _VIEW,
        "ALTER VIEW v SET (security_invoker = true)",
        ["changed view public.v"],
    ),
    "published rows": (
        15,
        _PUBLICATION,
        "ALTER PUBLICATION p SET TABLE t (a) WHERE (a > 1)",
        ["changed table public.t"],
    ),
    "published schema": (
        15,
        _PUBLICATION,
        "ALTER PUBLICATION p ADD TABLES IN SCHEMA public",
        ["extra tables in schema public"],
    ),
    "virtual column": (
        18,
        "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL)",
        "ALTER TABLE t ALTER b SET EXPRESSION AS (a * 3)",
        ["changed column b"],
    ),
    "not null not valid": (
        18,
        "CREATE TABLE t (a int); ALTER TABLE t ADD CONSTRAINT n NOT NULL a NOT VALID",
        "ALTER TABLE t VALIDATE CONSTRAINT n",
        ["missing constraint n"],
    ),
    "not enforced": (
        18,
        _FOREIGN_KEY,
        "ALTER TABLE t ALTER CONSTRAINT k NOT ENFORCED",
        ["changed constraint k"],
    ),
}


@pytest.mark.parametrize(
    ("since", "make", "change", "found"), LATER_CHANGES.values(), ids=LATER_CHANGES
)
def test_a_change_that_only_newer_servers_know(
    server: PostgresServer,
    backend: PostgresBackend,
    since: int,
    make: str,
    change: str,
    found: list[str],
) -> None:
    if server.version // 10000 < since:
        pytest.skip(f"PostgreSQL {since} brings this")
    test_a_change_is_seen_as_what_it_is(backend, Change(make, change, found))


_ROWS = "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 9) AS i"

NEUTRAL = {
    "rows": (_INDEX, _ROWS),
    "analyze": (_INDEX + _ROWS, "ANALYZE"),
    "vacuum": (_INDEX + _ROWS, "VACUUM FULL t"),
    "reindex": (_INDEX, "REINDEX TABLE t"),
    "nextval": (_SEQUENCE, "SELECT nextval('q')"),
    "refresh": (
        _T + "CREATE MATERIALIZED VIEW v AS SELECT a FROM t",
        "REFRESH MATERIALIZED VIEW v",
    ),
    "dropped and made again": (
        _VIEW,
        "DROP TABLE t CASCADE;" + _VIEW.replace("(a int, b text)", "(b text, a int)"),
    ),
    "column added and dropped": (_VIEW, "ALTER TABLE t ADD c text; ALTER TABLE t DROP c"),
    "column dropped and added": (_T, "ALTER TABLE t DROP a; ALTER TABLE t ADD a int"),
    "statistics of columns in another order": (
        "CREATE TABLE t (a int, b int); CREATE STATISTICS s ON a, b FROM t",
        "ALTER TABLE t DROP a; ALTER TABLE t ADD a int; CREATE STATISTICS s ON a, b FROM t",
    ),
    "parents in another order": (
        "CREATE TABLE p (a int); CREATE TABLE o (a int); CREATE TABLE t (a int) INHERITS (p, o)",
        "ALTER TABLE t NO INHERIT p; ALTER TABLE t INHERIT p",
    ),
    "granted on the system's own and revoked": (
        "",
        "GRANT SELECT ON pg_authid TO alice; REVOKE SELECT ON pg_authid FROM alice;"
        "REVOKE EXECUTE ON FUNCTION pg_sleep FROM PUBLIC;"
        "GRANT EXECUTE ON FUNCTION pg_sleep TO PUBLIC",
    ),
    "column renamed there and back": (
        _VIEW + _INDEX.removeprefix(_T),
        "ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME x TO a",
    ),
    "table renamed there and back": (
        _FOREIGN_KEY,
        "ALTER TABLE p RENAME TO x; ALTER TABLE x RENAME TO p",
    ),
    "not null set and dropped": (
        _T,
        "ALTER TABLE t ALTER a SET NOT NULL; ALTER TABLE t ALTER a DROP NOT NULL",
    ),
    "not null once more": (
        "CREATE TABLE t (a int NOT NULL)",
        "ALTER TABLE t ALTER a DROP NOT NULL; ALTER TABLE t ALTER a SET NOT NULL",
    ),
    "default set and dropped": (
        _T,
        "ALTER TABLE t ALTER a SET DEFAULT 1; ALTER TABLE t ALTER a DROP DEFAULT",
    ),
    "comment set and removed": (
        _T,
        "COMMENT ON COLUMN t.a IS 'x'; COMMENT ON COLUMN t.a IS NULL",
    ),
    "granted and revoked": (
        _T + _FUNCTION,
        "GRANT SELECT ON t TO alice; REVOKE SELECT ON t FROM alice;"
        "GRANT SELECT (a) ON t TO alice; REVOKE SELECT (a) ON t FROM alice;"
        "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC; GRANT EXECUTE ON FUNCTION f TO PUBLIC",
    ),
    "default privileges and back": (
        "",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO alice;"
        "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM alice",
    ),
    "statistics target and back": (
        _T,
        "ALTER TABLE t ALTER a SET STATISTICS 10; ALTER TABLE t ALTER a SET STATISTICS -1",
    ),
    "parameters in another order": (
        "CREATE TABLE t () WITH (fillfactor = 70, parallel_workers = 2)",
        "ALTER TABLE t RESET (fillfactor); ALTER TABLE t SET (fillfactor = 70)",
    ),
    "partition detached and attached": (
        _PARTITIONED + "ALTER TABLE p ADD PRIMARY KEY (a); CREATE TABLE r (a int REFERENCES p);"
        "CREATE TABLE u PARTITION OF p FOR VALUES IN (1)",
        "ALTER TABLE p DETACH PARTITION t; ALTER TABLE p ATTACH PARTITION t DEFAULT",
    ),
    "trigger disabled and enabled": (
        _TRIGGER,
        "ALTER TABLE t DISABLE TRIGGER g; ALTER TABLE t ENABLE TRIGGER g",
    ),
}


@pytest.mark.parametrize(("make", "action"), NEUTRAL.values(), ids=NEUTRAL)
def test_what_changes_nothing_is_no_difference(database: Postgres, make: str, action: str) -> None:
    """Nor does the order of columns: PostgreSQL cannot put one back in the middle."""
    if make:
        database.query(make)
    before = postgres_fingerprint(database.url)
    statements = [action] if action.startswith("VACUUM") else action.split(";")
    for statement in filter(str.strip, statements):
        database.query(statement)
    assert differences(before, postgres_fingerprint(database.url)) == []


# The text ----------------------------------------------------------------------------------------

SCHEMA = """\
CREATE TYPE mood AS ENUM ('it''s ok', 'happy');
CREATE DOMAIN email AS text CONSTRAINT has_at CHECK (VALUE LIKE '%@%');
CREATE TABLE users (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "Full name" varchar(20) COLLATE "C" NOT NULL DEFAULT 'x',
    since timestamptz DEFAULT '2024-02-01 00:00:00+00',
    email email,
    mood mood
) WITH (fillfactor = 90);
CREATE INDEX users_name ON users (lower("Full name") DESC) WHERE id > 0;
COMMENT ON TABLE users IS 'it''s them';
COMMENT ON COLUMN users.mood IS 'today';
GRANT SELECT, INSERT ON users TO alice WITH GRANT OPTION;
REVOKE ALL ON users FROM postgres;
CREATE VIEW happy AS SELECT 1 AS one;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
REVOKE ALL ON FUNCTION f FROM PUBLIC;
"""

TEXT = """\
domain public.email
    as text
    constraint has_at CHECK ((VALUE ~~ '%@%'::text))

function public.f()
    CREATE OR REPLACE FUNCTION public.f()
     RETURNS integer
     LANGUAGE sql
    AS $function$SELECT 1$function$
    grant on function public.f() to public nothing

table public.users
    with (fillfactor=90)
    column "Full name" character varying(20) collate "C" not null default 'x'::character varying
    column email public.email
    column id integer not null generated always as identity
    column mood public.mood
    column since timestamp with time zone default '2024-02-01 00:00:00+00'::timestamp with time zone
    comment on column mood 'today'
    comment on table public.users 'it''s them'
    constraint users_pkey PRIMARY KEY (id)
    grant on table public.users to CURRENT_USER nothing
    grant on table public.users to alice insert with grant option, select with grant option
    index users_name USING btree (lower(("Full name")::text) DESC) WHERE (id > 0)
    sequence public.users_id_seq as integer start 1 increment 1 minvalue 1 maxvalue 2147483647 \
cache 1 identity of public.users.id

type public.mood
    enum ('it''s ok', 'happy')

view public.happy
    as
     SELECT 1 AS one;
    column one integer"""

#: What an empty database has.
INITIAL = ["schema public", "extension plpgsql"]


def test_the_text_of_a_fingerprint(database: Postgres) -> None:
    database.query(SCHEMA)
    found = postgres_fingerprint(database.url).without(INITIAL)
    assert "\n".join(found.lines()) == TEXT


def test_it_is_the_same_in_every_session(database: Postgres) -> None:
    """Names have their schema and constants one format, whatever the session has set."""
    database.query(SCHEMA)
    settings = {
        "search_path": "nowhere",
        "datestyle": "German, DMY",
        "timezone": "Asia/Tokyo",
        "extra_float_digits": "-15",
        "intervalstyle": "iso_8601",
        "bytea_output": "escape",
        "quote_all_identifiers": "on",
        "default_transaction_read_only": "on",
    }
    here, there = database.url, database.url_with(**settings)
    assert postgres_fingerprint(there) == postgres_fingerprint(here)


def test_a_table_that_has_a_catalogs_name_is_in_nobodys_way(database: Postgres) -> None:
    backend = postgres_backend(database.url)
    with backend.opened():
        before = backend.fingerprint()
        backend.run_sql("CREATE TEMP TABLE pg_class (oid int); CREATE TABLE pg_proc (oid int)")
        assert differences(before, backend.fingerprint()) == ["extra table public.pg_proc"]


def test_another_role_reads_the_same_as_the_one_that_migrates(database: Postgres) -> None:
    """Whoever owns flux's history migrates; without one, it is the one that reads."""
    backend = postgres_backend(database.url)
    with backend.opened():
        backend.prepare(history=True, memory=True, unfinished=False)
    database.query(SCHEMA)
    database.query(
        "ALTER TABLE users OWNER TO alice; GRANT EXECUTE ON FUNCTION f TO alice;"
        "CREATE POLICY o ON users TO CURRENT_USER;"
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO alice;"
        "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"
    )
    monitor = f"monitor_{database.database}"
    database.query(f"CREATE ROLE {monitor} LOGIN PASSWORD '{database.server.password}'")
    url = database.url.replace(f"//{database.server.user}:", f"//{monitor}:")
    try:
        before = postgres_fingerprint(database.url)
        database.query(f"GRANT SELECT ON _flux_migrations, happy TO {monitor}")
        here = postgres_fingerprint(database.url)
        there = postgres_fingerprint(url)
        assert url != database.url
        assert there == here
        assert differences(before, there) == [f"extra grant on view public.happy to {monitor}"]
        database.query("DROP TABLE _flux_migrations, _flux_migrations_state")
        there = postgres_fingerprint(url)
        assert "changed view public.happy" in differences(before, there)
    finally:
        database.query(f"DROP OWNED BY {monitor}; DROP ROLE {monitor}")


# What is left out --------------------------------------------------------------------------------


def test_flux_own_tables_are_no_part_of_it(database: Postgres) -> None:
    """With all that belongs to them; and a table that has the name elsewhere is."""
    before = postgres_fingerprint(database.url)
    backend = postgres_backend(database.url)
    with backend.opened():
        backend.prepare(history=True, memory=True, unfinished=False)
    database.query(
        "CREATE INDEX ON _flux_migrations (hash); GRANT SELECT ON _flux_migrations TO alice;"
        "COMMENT ON TABLE _flux_migrations_state IS 'x';"
        "CREATE SCHEMA s CREATE TABLE _flux_migrations ()"
    )
    after = postgres_fingerprint(database.url)
    assert differences(before, after) == ["extra schema s", "extra table s._flux_migrations"]


def test_what_is_temporary_is_no_part_of_it(database: Postgres) -> None:
    backend = postgres_backend(database.url)
    with backend.opened():
        before = backend.fingerprint()
        backend.run_sql(
            "CREATE TEMP TABLE t (a serial PRIMARY KEY); CREATE TEMP VIEW v AS SELECT 1;"
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"
        )
        assert backend.fingerprint() == before


def test_what_an_extension_has_made_is_no_part_of_it(database: Postgres) -> None:
    """Also what a superuser has added to one; but what is made with it is."""
    database.query(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';"
        "CREATE TABLE t (a serial PRIMARY KEY, CHECK (a > 0));"
        "CREATE DOMAIN d AS int CHECK (VALUE > 0);"
        "CREATE TYPE c AS (a int); CREATE VIEW v AS SELECT 1; COMMENT ON TABLE t IS 'x'"
    )
    names = ("FUNCTION f()", "TABLE t", "SEQUENCE t_a_seq", "DOMAIN d", "TYPE c", "VIEW v")
    for name in names:
        database.query(f"ALTER EXTENSION plpgsql ADD {name}")
    found = postgres_fingerprint(database.url)
    assert list(found.without(INITIAL)) == [()]
    database.query("CREATE TABLE u (a c, b d)")
    after = postgres_fingerprint(database.url)
    assert differences(found, after) == ["extra table public.u"]


def test_secrets_are_told_by_what_stands_for_them(database: Postgres) -> None:
    database.query(
        "CREATE FOREIGN DATA WRAPPER w OPTIONS (api_key 'hidden-word');"
        "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'h', password 'hidden-word');"
        "CREATE USER MAPPING FOR alice SERVER s OPTIONS (\"user\" 'hidden-word', pw 'hidden-word')"
    )
    found = postgres_fingerprint(database.url).without(INITIAL)
    assert "\n".join(found.lines()) == (
        """\
foreign data wrapper w
    options (api_key=*** (6157df6e))

server s
    foreign data wrapper w options (host=h, password=*** (0e8234b0))
    user mapping for alice options (pw=*** (0f3829f0), user=*** (78894863))"""
    )


# What it costs, and what may be in the way -------------------------------------------------------


def test_it_takes_one_round_trip(database: Postgres) -> None:
    server = database.server
    with counting_proxy(server.host, server.port) as wire:
        url = database.url.replace(f":{server.port}/", f":{wire.port}/")
        backend = postgres_backend(url)
        with backend.opened():
            before = wire.round_trips
            backend.fingerprint()
            assert wire.round_trips == before + 1


def test_it_changes_nothing_of_the_session(database: Postgres) -> None:
    with closing(driver.connect(database.url)) as connection:
        connection.autocommit = True
        backend = PostgresBackend.for_connection(FluxConfig(backend="postgres"), connection)
        with backend.opened():
            settings = "SELECT name, setting, source FROM pg_settings ORDER BY name"
            before = backend.fetch(settings)
            backend.fingerprint()
            assert backend.fetch(settings) == before


def test_a_locked_table_is_waited_for_and_said(database: Postgres) -> None:
    """The definition of a view can only be read with a lock on what it is of."""
    database.query(_VIEW)
    said: list[str] = []
    with closing(database.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE t")

        def hear(message: str) -> None:
            said.append(message)
            cursor.execute("COMMIT")

        backend = postgres_backend(database.url)
        backend.announce = hear
        with backend.opened():
            found = backend.fingerprint()
    assert said == ["waiting for the catalog: another session has a table locked"]
    assert found == postgres_fingerprint(database.url)


def test_a_catalog_that_cannot_be_read_is_an_error_of_flux(database: Postgres) -> None:
    backend = postgres_backend(database.url_with(statement_timeout="1"))
    database.query(
        "DO $$ BEGIN FOR i IN 1..200 LOOP EXECUTE format('CREATE TABLE t%s (a int)', i); "
        "END LOOP; END $$"
    )
    with backend.opened(), pytest.raises(DatabaseUnavailableError) as raised:
        backend.fingerprint()
    assert str(raised.value).startswith("cannot read the catalog: canceling statement due to")
