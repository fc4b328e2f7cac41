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
    where="n.oid IN (SELECT oid FROM spaces) "
    "AND n.nspname NOT IN ('pg_catalog', 'information_schema')",
    owner="n.nspowner",
    acl="n.nspacl",
    acl_kind="'n'",
    first=0,  # "public" came with the server
)

_RELATIONS = part(
    "relations r "
    "LEFT JOIN (SELECT inhrelid, bool_or(inhdetachpending) AS is_pending, "
    # Their order says in which one the columns of a new child come, and later nothing.
    "string_agg(p, ', ' ORDER BY p COLLATE \"C\") AS names "
    "FROM pg_inherits CROSS JOIN LATERAL (SELECT inhparent::regclass::text AS p) parent "
    "GROUP BY inhrelid) parents ON parents.inhrelid = r.oid "
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
            options("f.ftoptions", "r.name"),
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
        options("a.attfdwoptions", "r.name, ' ', a.attname"),
        # The order of a row's values; that of a table's columns nobody can bring back.
        "CASE WHEN r.relkind = 'c' THEN 'number ' || (SELECT count(*) FROM pg_attribute o "
        "WHERE o.attrelid = a.attrelid AND o.attnum BETWEEN 1 AND a.attnum "
        "AND NOT o.attisdropped) END",
        when("NOT a.attislocal AND NOT r.relispartition", "inherited"),
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

_TARGETS_OF_INDEX = (
    "LEFT JOIN (SELECT attrelid, string_agg(concat('statistics of column ', attnum, ' ', "
    "attstattarget), ', ' ORDER BY attnum) AS texts FROM pg_attribute "
    "WHERE attstattarget >= 0 AND attnum > 0 GROUP BY attrelid) targets "
    "ON targets.attrelid = x.indexrelid "
)
_OF_INDEX = (
    "'tablespace ' || quote_ident(ts.spcname)",
    when("x.indisclustered", "clustered"),
    when("x.indisreplident", "replica identity"),
    when("NOT (x.indisvalid AND x.indisready AND x.indislive)", "invalid"),
    "targets.texts",
)

_CONSTRAINTS = part(
    "pg_constraint k JOIN relations r ON r.oid = k.conrelid "
    "LEFT JOIN pg_index x ON x.indexrelid = k.conindid AND k.contype IN ('p', 'u', 'x') "
    "LEFT JOIN pg_class i ON i.oid = x.indexrelid "
    f"{_TARGETS_OF_INDEX}"
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
        when("NOT k.conislocal AND NOT r.relispartition", "inherited"),
    ),
)

#: Of the indexes that belong to a constraint; those of others belong to the index.
_INDEX_COMMENTS = part(
    "pg_description d JOIN pg_class i ON i.oid = d.objoid AND d.classoid = 'pg_class'::regclass "
    "JOIN pg_index x ON x.indexrelid = i.oid JOIN relations r ON r.oid = x.indrelid",
    "'comment'",
    "'on index ' || quote_ident(i.relname)",
    id="i.oid",
    part_of="r.label",
    where="i.oid IN (SELECT conindid FROM pg_constraint WHERE contype IN ('p', 'u', 'x'))",
    definition="quote_literal(d.description)",
)

_INDEXES = part(
    "pg_index x JOIN relations r ON r.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid "
    "LEFT JOIN pg_inherits h ON h.inhrelid = i.oid "
    f"{_TARGETS_OF_INDEX}"
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

#: Those that a foreign key or another constraint works by, where they are not simply enabled. What
#: a partition has of its table's foreign keys is known by its text, for its name is made up.
_INTERNAL_TRIGGERS = part(
    "pg_trigger t JOIN relations r ON r.oid = t.tgrelid "
    "LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint",
    "'internal trigger'",
    "concat_ws(' of ', t.tgfoid::regproc::text, CASE WHEN k.oid IS NULL THEN quote_ident(t.tgname) "
    "WHEN k.conparentid = 0 THEN k.conrelid::regclass || '.' || quote_ident(k.conname) "
    "ELSE k.conrelid::regclass || ' ' || pg_get_constraintdef(k.oid) END)",
    part_of="r.label",
    where="t.tgisinternal AND t.tgenabled <> 'O'",
    definition=one_of("t.tgenabled", **ENABLED),
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
        listed(
            "ARRAY(SELECT CASE o WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' "
            "WHEN 'm' THEN 'mcv' ELSE 'expressions' END FROM unnest(e.stxkind) AS o)",
            "of",
        ),
        # In order of their names: the server has them in that of the table.
        listed(
            "ARRAY(SELECT quote_ident(attname) FROM pg_attribute "
            "WHERE attrelid = e.stxrelid AND attnum = ANY (e.stxkeys))",
            "on",
        ),
        listed("pg_get_statisticsobjdef_expressions(e.oid)", "and on"),
        "'statistics ' || nullif(e.stxstattarget, -1)",
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
    _INDEX_COMMENTS,
    _INDEXES,
    _TRIGGERS,
    _INTERNAL_TRIGGERS,
    _RULES,
    _POLICIES,
    _STATISTICS,
)
