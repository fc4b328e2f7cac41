"""What a fingerprint tells of PostgreSQL's tables and their like. Pure: text alone."""

from __future__ import annotations

from flux.backends.postgres_catalog_parts import (
    ENABLED,
    Part,
    listed,
    named,
    one_of,
    options,
    part,
    role,
    when,
    words,
)

# Schemas, and tables and their like --------------------------------------------------------------

_SCHEMAS = part(
    "pg_namespace n",
    "'schema'",
    "quote_ident(n.nspname)",
    where="n.oid IN (SELECT oid FROM spaces)",
    owner="n.nspowner",
    acl="n.nspacl",
    acl_kind="'n'",
)

_RELATIONS = part(
    "relations r "
    "LEFT JOIN (SELECT inhrelid, bool_or(inhdetachpending) AS is_pending, "
    "string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno) AS names "
    "FROM pg_inherits GROUP BY inhrelid) parents ON parents.inhrelid = r.oid "
    "LEFT JOIN pg_class toast ON toast.oid = r.reltoastrelid "
    "LEFT JOIN pg_am am ON am.oid = r.relam "
    "LEFT JOIN pg_tablespace ts ON ts.oid = r.reltablespace "
    "LEFT JOIN pg_foreign_table f ON f.ftrelid = r.oid "
    "LEFT JOIN pg_foreign_server fs ON fs.oid = f.ftserver",
    "r.kind",
    "r.name",
    catalog="pg_class",
    where="r.relkind NOT IN ('S', 'c')",
    definition="concat_ws(E'\\n', "
    + ", ".join(
        [
            when("r.relpersistence = 'u'", "unlogged"),
            "'of ' || nullif(r.reloftype, 0)::regtype",
            "CASE WHEN r.relispartition THEN 'partition of ' || parents.names || ' ' "
            "|| pg_get_expr(r.relpartbound, r.oid) ELSE 'inherits (' || parents.names || ')' END",
            when("parents.is_pending", "detach pending"),
            "'partition by ' || pg_get_partkeydef(r.oid)",
            "'server ' || quote_ident(fs.srvname)",
            options("f.ftoptions"),
            "'using ' || quote_ident(nullif(am.amname, 'heap'))",
            listed(
                "r.reloptions || ARRAY(SELECT 'toast.' || o FROM unnest(toast.reloptions) AS o)",
                "with",
            ),
            "'tablespace ' || quote_ident(ts.spcname)",
            when("r.relrowsecurity", "row level security"),
            when("r.relforcerowsecurity", "row level security is forced"),
            "CASE WHEN r.relkind IN ('r', 'p') THEN 'replica identity ' || "
            + one_of("r.relreplident", f="full", n="nothing")
            + " END",
            when("r.relkind = 'm' AND NOT r.relispopulated", "with no data"),
            "CASE WHEN r.relkind IN ('v', 'm') THEN E'as\\n' || pg_get_viewdef(r.oid) END",
        ]
    )
    + ")",
    owner="r.relowner",
    acl="r.relacl",
    acl_kind="'r'",
)

_COLUMNS = part(
    "relations r "
    "JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped "
    "JOIN pg_type t ON t.oid = a.atttypid "
    "LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum",
    "CASE r.relkind WHEN 'c' THEN 'attribute' ELSE 'column' END",
    "quote_ident(a.attname)",
    catalog="pg_class",
    sub="a.attnum",
    part_of="r.label",
    where="r.relkind <> 'S'",
    definition=words(
        "format_type(a.atttypid, a.atttypmod)",
        "'collate ' || CASE WHEN a.attcollation <> t.typcollation "
        "THEN nullif(a.attcollation, 0)::regcollation::text END",
        when("a.attnotnull", "not null"),
        "CASE a.attgenerated WHEN '' THEN 'default ' || pg_get_expr(d.adbin, d.adrelid) "
        "ELSE 'generated always as (' || pg_get_expr(d.adbin, d.adrelid) || ') ' || "
        + one_of("a.attgenerated", s="stored", v="virtual")
        + " END",
        "'generated ' || "
        + one_of("a.attidentity", a="always", d="by default")
        + "||' as identity'",
        "CASE WHEN a.attstorage <> t.typstorage AND r.relkind NOT IN ('v', 'c') THEN 'storage ' || "
        + one_of("a.attstorage", p="plain", e="external", m="main", x="extended")
        + " END",
        "'compression ' || " + one_of("a.attcompression", p="pglz", l="lz4"),
        "'statistics ' || nullif(a.attstattarget, -1)",
        listed("a.attoptions", "with"),
        options("a.attfdwoptions"),
    ),
    acl="a.attacl",
    acl_kind="'c'",
    grantor="r.relowner",
)

_SEQUENCES = part(
    "pg_sequence q JOIN relations r ON r.oid = q.seqrelid "
    "LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = r.oid "
    "AND d.objsubid = 0 AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 "
    "AND d.deptype IN ('a', 'i') "
    "LEFT JOIN relations t ON t.oid = d.refobjid "
    "LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid",
    "r.kind",
    "r.name",
    catalog="pg_class",
    id="r.oid",
    # That of an identity belongs to it: it cannot be without.
    part_of="CASE d.deptype WHEN 'i' THEN t.label ELSE '' END",
    definition=words(
        "'as ' || format_type(q.seqtypid, NULL)",
        "'start ' || q.seqstart",
        "'increment ' || q.seqincrement",
        "'minvalue ' || q.seqmin",
        "'maxvalue ' || q.seqmax",
        "'cache ' || q.seqcache",
        when("q.seqcycle", "cycle"),
        when("r.relpersistence = 'u'", "unlogged"),
        "CASE d.deptype WHEN 'i' THEN 'identity of ' ELSE 'owned by ' END "
        "|| t.name || '.' || quote_ident(a.attname)",
    ),
    owner="r.relowner",
    acl="r.relacl",
    acl_kind="'s'",
)

# What belongs to a table -------------------------------------------------------------------------

_OF_INDEX = (
    "'tablespace ' || quote_ident(ts.spcname)",
    when("x.indisclustered", "clustered"),
    when("x.indisreplident", "replica identity"),
    when("NOT (x.indisvalid AND x.indisready AND x.indislive)", "invalid"),
)

_CONSTRAINTS = part(
    "pg_constraint k JOIN relations r ON r.oid = k.conrelid "
    "LEFT JOIN pg_index x ON x.indexrelid = k.conindid AND k.contype IN ('p', 'u', 'x') "
    "LEFT JOIN pg_class i ON i.oid = x.indexrelid "
    "LEFT JOIN pg_tablespace ts ON ts.oid = i.reltablespace",
    "'constraint'",
    "quote_ident(k.conname)",
    part_of="r.label",
    # Constraint triggers are triggers; NOT NULL, which PostgreSQL 18 has here, is the column's; and
    # for foreign keys a partition has copies, whose names are made up.
    where="k.contype <> 't' AND (k.contype <> 'n' OR NOT k.convalidated OR k.connoinherit) "
    "AND (k.contype <> 'f' OR k.conparentid = 0)",
    definition=words(
        "pg_get_constraintdef(k.oid)",
        listed("i.reloptions", "with"),
        *_OF_INDEX,
        when(
            "k.oid IN (SELECT tgconstraint FROM pg_trigger WHERE tgisinternal "
            "AND tgenabled <> 'O')",
            "disabled",
        ),
    ),
)

_INDEXES = part(
    "pg_index x JOIN relations r ON r.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid "
    "LEFT JOIN pg_inherits h ON h.inhrelid = i.oid "
    "LEFT JOIN pg_tablespace ts ON ts.oid = i.reltablespace",
    "'index'",
    "quote_ident(i.relname)",
    catalog="pg_class",
    id="i.oid",
    part_of="r.label",
    where="NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid "
    "AND k.contype IN ('p', 'u', 'x'))",
    definition=words(
        when("x.indisunique", "unique"),
        # Its name and its table's are said by the item itself.
        "replace(replace(pg_get_indexdef(i.oid), "
        "concat('CREATE ', CASE WHEN x.indisunique THEN 'UNIQUE ' END, 'INDEX ', "
        "quote_ident(i.relname), ' ON ', r.name, ' '), ''), "
        "concat('CREATE ', CASE WHEN x.indisunique THEN 'UNIQUE ' END, 'INDEX ', "
        "quote_ident(i.relname), ' ON ONLY ', r.name, ' '), '')",
        *_OF_INDEX,
        "'attached to ' || h.inhparent::regclass",
    ),
)

_TRIGGERS = part(
    "pg_trigger t JOIN relations r ON r.oid = t.tgrelid",
    "'trigger'",
    "quote_ident(t.tgname)",
    part_of="r.label",
    where="NOT t.tgisinternal",
    definition=words("pg_get_triggerdef(t.oid)", one_of("t.tgenabled", **ENABLED)),
)

_RULES = part(
    "pg_rewrite w JOIN relations r ON r.oid = w.ev_class",
    "'rule'",
    "quote_ident(w.rulename)",
    part_of="r.label",
    where="w.rulename <> '_RETURN'",
    definition=words("pg_get_ruledef(w.oid)", one_of("w.ev_enabled", **ENABLED)),
)

_POLICIES = part(
    "pg_policy p JOIN relations r ON r.oid = p.polrelid",
    "'policy'",
    "quote_ident(p.polname)",
    part_of="r.label",
    definition=words(
        "CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END",
        "'for ' || "
        "CASE p.polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update' "
        "WHEN 'd' THEN 'delete' ELSE 'all' END",
        listed(f"ARRAY(SELECT {role('id')} FROM unnest(p.polroles) AS id)", "to"),
        "'using ' || pg_get_expr(p.polqual, p.polrelid)",
        "'with check ' || pg_get_expr(p.polwithcheck, p.polrelid)",
    ),
)

_STATISTICS = part(
    "pg_statistic_ext e JOIN relations r ON r.oid = e.stxrelid "
    "JOIN spaces s ON s.oid = e.stxnamespace",
    "'statistics'",
    named("e.stxname"),
    part_of="r.label",
    definition=words(
        "pg_get_statisticsobjdef(e.oid)", "'statistics ' || nullif(e.stxstattarget, -1)"
    ),
    owner="e.stxowner",
)


#: Schemas, tables and their like, and what belongs to those.
TABLES: tuple[Part, ...] = (
    _SCHEMAS,
    _RELATIONS,
    _COLUMNS,
    _SEQUENCES,
    _CONSTRAINTS,
    _INDEXES,
    _TRIGGERS,
    _RULES,
    _POLICIES,
    _STATISTICS,
)
