"""Reading the fingerprint of a PostgreSQL database: one query, in one round trip. Read-only.

`postgres_catalog_tables`, `postgres_catalog_objects` and `postgres_catalog_schemaless` say what
there is in a catalog. Here is what all of it has in common: what is left out, and owners, comments,
security labels, grants, which `postgres_catalog_grants` says more of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux.backends.postgres_catalog_grants import GRANTS, OTHERS
from flux.backends.postgres_catalog_objects import OBJECTS
from flux.backends.postgres_catalog_parts import FIRST_OWN_OID, MIGRATOR, Part, role
from flux.backends.postgres_catalog_schemaless import SCHEMALESS
from flux.backends.postgres_catalog_tables import TABLES
from flux.backends.postgres_errors import LOCK_NOT_AVAILABLE, sqlstate
from flux.fingerprint import Fingerprint, Item

if TYPE_CHECKING:
    from flux.backends.postgres import PostgresBackend

#: For this message alone, so that everything is spelled the same way in every session: names with
#: their schema, constants in one format. With this path nobody's names hide the catalog's.
SETTINGS = """\
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL DateStyle = ISO, YMD;
SET LOCAL IntervalStyle = postgres;
SET LOCAL TimeZone = 'UTC';
SET LOCAL extra_float_digits = 1;
SET LOCAL bytea_output = hex;
SET LOCAL quote_all_identifiers = off;
SET LOCAL standard_conforming_strings = on;
"""
#: How many rows come from a part is guessed too low: nested loops would take a time that grows with
#: the square of what is there, and what the server compiles for them takes longer than they do.
_PLANNING = "SET LOCAL enable_nestloop = off;\nSET LOCAL jit = off;\n"


def read(backend: PostgresBackend) -> Fingerprint:
    """The fingerprint of an open database, without flux's own tables. Read-only."""
    query = fingerprint_sql(
        backend.dbapi.info.server_version,
        backend.literal(backend.table),
        backend.literal(backend.state_table),
    )
    try:
        # What deparses a view locks its tables, as those who only read do.
        rows = backend.fetch(f"SET LOCAL lock_timeout = 1000;\n{query}")
    except backend.driver.error as error:
        if sqlstate(error) != LOCK_NOT_AVAILABLE:
            raise
        backend.announce("waiting for the catalog: another session has a table locked")
        rows = backend.fetch(query)
    return Fingerprint.of(Item(*row) for row in rows)


def fingerprint_sql(version: int, history: str, state: str) -> str:
    """The message that gives the items, without flux's own tables, given as literals. Pure."""
    parts = "\nUNION ALL\n".join(
        _select(part)
        for part in (*TABLES, *OBJECTS, *SCHEMALESS)
        if part.since <= version < part.until
    )
    return f"""{SETTINGS}{_PLANNING}
WITH migrator AS MATERIALIZED (
    SELECT coalesce(
        (SELECT relowner FROM pg_class WHERE oid = to_regclass({history})),
        quote_ident(current_user)::regrole
    ) AS id
), spaces AS MATERIALIZED (
    SELECT oid, quote_ident(nspname) AS name FROM pg_namespace
    WHERE nspname !~ '^pg_' OR nspname = 'pg_catalog'
), members AS MATERIALIZED (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    -- and what a range type brings along
    OR deptype = 'i' AND classid IN ('pg_proc'::regclass, 'pg_cast'::regclass)
), relations AS MATERIALIZED (
    SELECT r.*, kinds.kind, s.name || '.' || quote_ident(r.relname) AS name,
        kinds.kind || ' ' || s.name || '.' || quote_ident(r.relname) AS label
    FROM pg_class r JOIN spaces s ON s.oid = r.relnamespace
    JOIN (VALUES ('r', 'table'), ('p', 'table'), ('v', 'view'), ('m', 'materialized view'),
        ('S', 'sequence'), ('f', 'foreign table'), ('c', 'type')) AS kinds (relkind, kind)
        ON r.relkind::text = kinds.relkind
    WHERE r.oid >= {FIRST_OWN_OID} AND r.oid NOT IN (
        SELECT oid FROM unnest(ARRAY[to_regclass({history}), to_regclass({state})]) AS oid
        WHERE oid IS NOT NULL
    )
    AND {_is_no_member("pg_class", "r.oid")} AND {_is_no_member("pg_type", "r.reltype")}
), objects (class, id, sub, kind, name, part_of, definition, owner, acl, acl_kind, grantor)
AS MATERIALIZED (
{parts}
), labels AS MATERIALIZED (
    SELECT *, coalesce(nullif(part_of, ''), kind || ' ' || name) AS label,
        'on ' || kind || ' ' || name AS target
    FROM objects
), {OTHERS}
SELECT kind, name, part_of, concat_ws(E'\\n', nullif(definition, ''),
    'owner ' || nullif({role("owner")}, '{MIGRATOR}'))
FROM objects
UNION ALL
SELECT 'comment', target, label, quote_literal(d.description)
FROM labels JOIN pg_description d ON (d.classoid, d.objoid, d.objsubid) = (class, id, sub)
UNION ALL
SELECT 'security label', target || ' for ' || d.provider, l.label, quote_literal(d.label)
FROM labels l JOIN pg_seclabel d ON (d.classoid, d.objoid, d.objsubid) = (class, id, sub)
UNION ALL
SELECT 'dependence', concat_ws(' ', target, 'on extension', quote_ident(e.extname)), label, ''
FROM labels JOIN pg_depend d ON (d.classid, d.objid, 0) = (class, id, sub) AND d.deptype = 'x'
JOIN pg_extension e ON e.oid = d.refobjid
UNION ALL
{GRANTS}"""


def _select(part: Part) -> str:
    """The query for one part."""
    where = f"({part.where}) AND {part.id} >= {part.first}"
    if part.part_of == "''":
        where += f" AND {_is_no_member(part.catalog, part.id)}"
    return f"""\
SELECT '{part.catalog}'::regclass::oid, {part.id}, {part.sub}::int, {part.kind}, {part.name},
    {part.part_of}, {part.definition}::text, {part.owner}::oid, {part.acl}::aclitem[],
    {part.acl_kind}::"char", coalesce({part.grantor}, {part.owner})::oid
FROM {part.source} WHERE {where}"""


def _is_no_member(catalog: str, id: str) -> str:
    """The condition that an object belongs to no extension."""
    return (
        f"NOT EXISTS (SELECT FROM members m WHERE m.classid = '{catalog}'::regclass"
        f" AND m.objid = {id})"
    )
