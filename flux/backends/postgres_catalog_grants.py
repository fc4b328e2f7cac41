"""What a fingerprint tells of PostgreSQL's grants: what differs from the usual. Pure: text alone.

Usual is what an object's owner and everybody have by default; what came with the server or with an
extension has the rights that it came with.
"""

from __future__ import annotations

from flux.backends.postgres_catalog_parts import FIRST_OWN_OID, role


def _rights(acl: str) -> str:
    """The query for what an access list grants to each."""
    by = f"CASE WHEN x.grantor <> granted.grantor THEN ' by ' || {role('x.grantor')} ELSE '' END"
    return f"""\
SELECT {role("x.grantee")} AS name, string_agg(
    lower(x.privilege_type)
    || CASE WHEN x.is_grantable THEN ' with grant option' ELSE '' END
    || {by}, ', ' ORDER BY x.privilege_type, {by}) AS rights
FROM aclexplode({acl}) x GROUP BY x.grantee"""


#: What initdb has granted there is noted nowhere.
_NOT_INFORMATION_SCHEMA = "JOIN pg_namespace n ON n.nspname <> 'information_schema'"
#: Each kind of thing that an extension or the server has made: its catalog, the alias of this, its
#: number in it, its kind, its name, and its access list with the kind and the owner of that.
_KINDS = (
    (
        "pg_class",
        "c.oid",
        "0",
        "CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' "
        "WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END",
        "quote_ident(n.nspname) || '.' || quote_ident(c.relname)",
        "c.relacl",
        "CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END",
        "c.relowner",
        f"pg_class c {_NOT_INFORMATION_SCHEMA} AND n.oid = c.relnamespace",
    ),
    (
        "pg_class",
        "c.oid",
        "a.attnum",
        "'column'",
        "concat_ws('.', quote_ident(n.nspname), quote_ident(c.relname), quote_ident(a.attname))",
        "a.attacl",
        "'c'",
        "c.relowner",
        "pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        f"{_NOT_INFORMATION_SCHEMA} AND n.oid = c.relnamespace",
    ),
    (
        "pg_proc",
        "p.oid",
        "0",
        "CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END",
        "concat(quote_ident(n.nspname), '.', quote_ident(p.proname), "
        "'(', oidvectortypes(p.proargtypes), ')')",
        "p.proacl",
        "'f'",
        "p.proowner",
        "pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace",
    ),
    (
        "pg_type",
        "t.oid",
        "0",
        "CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END",
        "quote_ident(n.nspname) || '.' || quote_ident(t.typname)",
        "t.typacl",
        "'T'",
        "t.typowner",
        "pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace",
    ),
    *(
        (
            catalog,
            "c.oid",
            "0",
            f"'{kind}'",
            f"quote_ident(c.{prefix}name)",
            f"c.{prefix}acl",
            f"'{acl_kind}'",
            f"c.{prefix}owner",
            source,
        )
        for catalog, kind, prefix, acl_kind, source in (
            ("pg_language", "language", "lan", "l", "pg_language c"),
            (
                "pg_namespace",
                "schema",
                "nsp",
                "n",
                f"pg_namespace c {_NOT_INFORMATION_SCHEMA} AND n.oid = c.oid",
            ),
            (
                "pg_foreign_data_wrapper",
                "foreign data wrapper",
                "fdw",
                "F",
                "pg_foreign_data_wrapper c",
            ),
            ("pg_foreign_server", "server", "srv", "S", "pg_foreign_server c"),
        )
    ),
)

_SOMETHING = "\nUNION ALL\n".join(
    f"""\
SELECT '{catalog}'::regclass::oid AS class, {id} AS id, {sub}::int AS sub,
    'on ' || {kind} || ' ' || {name} AS target, {acl} AS acl, ({acl_kind})::"char" AS acl_kind,
    {owner} AS grantor
FROM {source} WHERE {acl} IS NOT NULL"""
    for catalog, id, sub, kind, name, acl, acl_kind, owner, source in _KINDS
)

#: The tables of the query for grants: what has some that is not told of otherwise, and then all.
OTHERS = f"""\
others AS MATERIALIZED (
{_SOMETHING}
), granted (target, label, acl, usual, grantor) AS MATERIALIZED (
    SELECT target, label, acl, acldefault(acl_kind, grantor), grantor
    FROM labels WHERE acl IS NOT NULL
    UNION ALL
    SELECT o.target, '', o.acl, coalesce(i.initprivs, acldefault(o.acl_kind, o.grantor)), o.grantor
    FROM others o
    LEFT JOIN pg_init_privs i ON (i.classoid, i.objoid, i.objsubid) = (o.class, o.id, o.sub)
    WHERE i.initprivs IS DISTINCT FROM o.acl
    AND (
        o.id < {FIRST_OWN_OID}
        OR EXISTS (SELECT FROM members m WHERE (m.classid, m.objid) = (o.class, o.id))
    )
    AND NOT EXISTS (SELECT FROM objects t WHERE (t.class, t.id, t.sub) = (o.class, o.id, o.sub))
)"""

#: The query for the items, to be united with others.
GRANTS = f"""\
SELECT 'grant', concat_ws(' ', target, 'to', g.name), label, g.rights
FROM granted CROSS JOIN LATERAL (
    SELECT coalesce(now.name, usual.name) AS name, coalesce(now.rights, 'nothing') AS rights
    FROM ({_rights("acl")}) now
    FULL JOIN ({_rights("granted.usual")}) usual USING (name)
    WHERE now.rights IS DISTINCT FROM usual.rights
) g"""
