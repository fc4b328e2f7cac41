"""What lies beyond a database on its server: roles and tablespaces, as a fingerprint."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from flux.fingerprint import Fingerprint, Item
from flux.scratch import digest

_ROLES: Final = """\
SELECT 'role', pg_catalog.quote_ident(r.rolname), '', pg_catalog.concat_ws(' ',
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN NOT r.rolinherit THEN 'NOINHERIT' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolcanlogin THEN 'LOGIN' END,
    CASE WHEN r.rolreplication THEN 'REPLICATION' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN r.rolconnlimit <> -1 THEN 'CONNECTION LIMIT ' || r.rolconnlimit END,
    'VALID UNTIL ' || pg_catalog.quote_literal(r.rolvaliduntil),
    'COMMENT ' || pg_catalog.quote_literal(
        pg_catalog.shobj_description(r.oid, 'pg_authid')))
FROM pg_catalog.pg_roles r WHERE r.rolname !~ '^pg_'
UNION ALL
SELECT 'member of', pg_catalog.quote_ident(g.rolname) || ' by ' || coalesce(
        pg_catalog.quote_ident(b.rolname), '?'),
    'role ' || pg_catalog.quote_ident(r.rolname),
    (pg_catalog.to_jsonb(m) - '{oid,roleid,member,grantor}'::text[])::text
FROM pg_catalog.pg_auth_members m
JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
JOIN pg_catalog.pg_roles r ON r.oid = m.member
LEFT JOIN pg_catalog.pg_roles b ON b.oid = m.grantor
UNION ALL
SELECT 'setting', pg_catalog.concat(
        pg_catalog.split_part(setting.text, '=', 1),
        ' in database ' || pg_catalog.quote_ident(d.datname)),
    coalesce('role ' || pg_catalog.quote_ident(r.rolname), ''),
    pg_catalog.regexp_replace(setting.text, '^[^=]*=', '')
FROM pg_catalog.pg_db_role_setting s
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS setting(text)
WHERE s.setdatabase = 0 OR d.datname !~ '^flux_'
UNION ALL
SELECT 'tablespace', pg_catalog.quote_ident(t.spcname), '', pg_catalog.concat_ws(' ',
    'OWNER ' || pg_catalog.pg_get_userbyid(t.spcowner)::text,
    'LOCATION ' || pg_catalog.quote_literal(pg_catalog.pg_tablespace_location(t.oid)),
    'OPTIONS ' || t.spcoptions::text, 'GRANTED ' || t.spcacl::text,
    'COMMENT ' || pg_catalog.quote_literal(
        pg_catalog.shobj_description(t.oid, 'pg_tablespace')))
FROM pg_catalog.pg_tablespace t
"""


def read_beyond(fetch: Callable[[str], list[Any]]) -> Fingerprint:
    """The roles with their memberships and settings, and the tablespaces. Read-only."""
    return Fingerprint.of(_without_secret(Item(*row)) for row in fetch(_ROLES))


def _without_secret(item: Item) -> Item:
    """A setting whose name says that it is a secret, with what stands for its value."""
    if item.kind == "setting" and re.search(r"(?i)pass|pwd|secret|token|key", item.name):
        return item._replace(definition=f"*** ({digest(item.definition)})")
    return item
