"""Reading the fingerprint of a PostgreSQL database: one query, in one round trip. Read-only.

`postgres_catalog_tables` and `postgres_catalog_objects` say what there is in a catalog. Here is
what all of it has in common: what is left out, and owners, grants, comments, security labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flux.backends.postgres_catalog_objects import OBJECTS
from flux.backends.postgres_catalog_parts import READER, Part, role
from flux.backends.postgres_catalog_tables import TABLES
from flux.backends.postgres_errors import LOCK_NOT_AVAILABLE, sqlstate
from flux.fingerprint import Fingerprint, Item

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        (backend.literal(backend.table), backend.literal(backend.state_table)),
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


def fingerprint_sql(version: int, own: Iterable[str]) -> str:
    """The message that gives the items; `own` are the literals of flux's own tables. Pure."""
    parts = "\nUNION ALL\n".join(
        _select(part) for part in (*TABLES, *OBJECTS) if part.since <= version < part.until
    )
    return f"""{SETTINGS}{_PLANNING}
WITH spaces AS MATERIALIZED (
    SELECT oid, quote_ident(nspname) AS name FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
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
    WHERE r.oid NOT IN (
        SELECT oid FROM unnest(ARRAY[{", ".join(f"to_regclass({name})" for name in own)}]) AS oid
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
)
SELECT kind, name, part_of, concat_ws(E'\\n', nullif(definition, ''),
    'owner ' || nullif({role("owner")}, '{READER}'))
FROM objects
UNION ALL
SELECT 'comment', target, label, quote_literal(d.description)
FROM labels JOIN pg_description d ON (d.classoid, d.objoid, d.objsubid) = (class, id, sub)
UNION ALL
SELECT 'security label', target || ' for ' || d.provider, l.label, quote_literal(d.label)
FROM labels l JOIN pg_seclabel d ON (d.classoid, d.objoid, d.objsubid) = (class, id, sub)
UNION ALL
SELECT 'grant', concat_ws(' ', target, 'to', g.name), label, g.rights
FROM labels CROSS JOIN LATERAL (
    SELECT coalesce(now.name, usual.name) AS name, coalesce(now.rights, 'nothing') AS rights
    FROM ({_rights("acl")}) now
    FULL JOIN ({_rights("acldefault(acl_kind, grantor)")}) usual USING (name)
    WHERE now.rights IS DISTINCT FROM usual.rights
) g
WHERE acl IS NOT NULL"""


def _select(part: Part) -> str:
    """The query for one part."""
    where = part.where
    if part.part_of == "''":
        where = f"({where}) AND {_is_no_member(part.catalog, part.id)}"
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


def _rights(acl: str) -> str:
    """The query for what an access list grants to each."""
    by = f"CASE WHEN x.grantor <> labels.grantor THEN ' by ' || {role('x.grantor')} ELSE '' END"
    return f"""\
SELECT {role("x.grantee")} AS name, string_agg(
    lower(x.privilege_type)
    || CASE WHEN x.is_grantable THEN ' with grant option' ELSE '' END
    || {by}, ', ' ORDER BY x.privilege_type, {by}) AS rights
FROM aclexplode({acl}) x GROUP BY x.grantee"""
