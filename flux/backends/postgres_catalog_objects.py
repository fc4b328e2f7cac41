"""What a fingerprint tells of PostgreSQL's functions, types and operators. Pure: text alone."""

from __future__ import annotations

from flux.backends.postgres_catalog_parts import (
    FIRST_OWN_OID,
    Part,
    function,
    named,
    one_of,
    part,
    when,
    words,
)

# Functions and types -----------------------------------------------------------------------------

_FUNCTIONS = part(
    "pg_proc p JOIN spaces s ON s.oid = p.pronamespace "
    "LEFT JOIN pg_aggregate g ON g.aggfnoid = p.oid",
    "CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END",
    named("p.proname") + " || '(' || oidvectortypes(p.proargtypes) || ')'",
    definition="CASE WHEN p.prokind <> 'a' THEN rtrim(pg_get_functiondef(p.oid), E'\\n') ELSE "
    + words(
        "'(' || pg_get_function_arguments(p.oid) || ')'",
        "'returns ' || pg_get_function_result(p.oid)",
        function("g.aggtransfn", "sfunc"),
        "'stype ' || format_type(g.aggtranstype, NULL)",
        "'sspace ' || nullif(g.aggtransspace, 0)",
        "'initcond ' || quote_literal(g.agginitval)",
        function("g.aggfinalfn", "finalfunc"),
        when("g.aggfinalextra", "finalfunc_extra"),
        "'finalfunc_modify ' || g.aggfinalmodify::text",
        function("g.aggcombinefn", "combinefunc"),
        function("g.aggserialfn", "serialfunc"),
        function("g.aggdeserialfn", "deserialfunc"),
        function("g.aggmtransfn", "msfunc"),
        function("g.aggminvtransfn", "minvfunc"),
        function("g.aggmfinalfn", "mfinalfunc"),
        when("g.aggmfinalextra", "mfinalfunc_extra"),
        "'mstype ' || format_type(nullif(g.aggmtranstype, 0), NULL)",
        "'msspace ' || nullif(g.aggmtransspace, 0)",
        "'minitcond ' || quote_literal(g.aggminitval)",
        "'sortop ' || nullif(g.aggsortop, 0)::regoperator::text",
        one_of("g.aggkind", o="ordered set", h="hypothetical"),
        "'parallel ' || " + one_of("p.proparallel", s="safe", r="restricted", u="unsafe"),
    )
    + " END",
    owner="p.proowner",
    acl="p.proacl",
    acl_kind="'f'",
)

_TYPES = part(
    "pg_type t JOIN spaces s ON s.oid = t.typnamespace "
    "LEFT JOIN relations r ON r.oid = t.typrelid AND r.relkind = 'c' "
    "LEFT JOIN (SELECT enumtypid, string_agg(quote_literal(enumlabel), ', ' "
    "ORDER BY enumsortorder) AS labels FROM pg_enum GROUP BY enumtypid) e ON e.enumtypid = t.oid "
    "LEFT JOIN pg_type base ON base.oid = t.typbasetype "
    "LEFT JOIN pg_range g ON g.rngtypid = t.oid "
    "LEFT JOIN pg_opclass o ON o.oid = g.rngsubopc AND NOT o.opcdefault "
    "LEFT JOIN pg_type sub ON sub.oid = g.rngsubtype",
    "CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END",
    named("t.typname"),
    where="t.typtype <> 'm' AND (t.typtype <> 'c' OR r.oid IS NOT NULL) "
    "AND t.oid NOT IN (SELECT typarray FROM pg_type)",
    definition="CASE t.typtype WHEN 'e' THEN concat('enum (', e.labels, ')') "
    "WHEN 'c' THEN 'composite' WHEN 'p' THEN 'shell' WHEN 'd' THEN "
    + words(
        "'as ' || format_type(t.typbasetype, t.typtypmod)",
        "'collate ' || CASE WHEN t.typcollation <> base.typcollation "
        "THEN nullif(t.typcollation, 0)::regcollation::text END",
        "'default ' || pg_get_expr(t.typdefaultbin, 0)",
        when("t.typnotnull", "not null"),
    )
    + " WHEN 'r' THEN "
    + words(
        "'range of ' || format_type(g.rngsubtype, NULL)",
        "'collate ' || CASE WHEN g.rngcollation <> sub.typcollation "
        "THEN nullif(g.rngcollation, 0)::regcollation::text END",
        "'operator class ' || quote_ident(o.opcname)",
        function("g.rngcanonical", "canonical"),
        function("g.rngsubdiff", "subtype_diff"),
        "'multirange ' || format_type(g.rngmultitypid, NULL)",
    )
    + " ELSE "
    + words(
        function("t.typinput", "input"),
        function("t.typoutput", "output"),
        function("t.typreceive", "receive"),
        function("t.typsend", "send"),
        "'length ' || t.typlen",
        "'alignment ' || t.typalign::text",
        "'storage ' || t.typstorage::text",
        "'category ' || t.typcategory::text",
        "'default ' || t.typdefault",
    )
    + " END",
    owner="t.typowner",
    acl="t.typacl",
    acl_kind="'T'",
)

_DOMAIN_CONSTRAINTS = part(
    "pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN spaces s ON s.oid = t.typnamespace "
    "LEFT JOIN members m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid",
    "'constraint'",
    "quote_ident(k.conname)",
    part_of="'domain ' || " + named("t.typname"),
    where="k.contype <> 'n' AND m.objid IS NULL",
    definition="pg_get_constraintdef(k.oid)",
)

_COLLATIONS = part(
    "pg_collation c JOIN spaces s ON s.oid = c.collnamespace",
    "'collation'",
    named("c.collname"),
    definition=words(
        one_of("c.collprovider", b="builtin", c="libc", i="icu"),
        "'locale ' || quote_literal(coalesce("
        # Each version has its own name for this.
        "to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', c.collcollate))",
        "'ctype ' || quote_literal(nullif(c.collctype, c.collcollate))",
        "'rules ' || quote_literal(to_jsonb(c) ->> 'collicurules')",
        when("NOT c.collisdeterministic", "not deterministic"),
    ),
    owner="c.collowner",
)

_CONVERSIONS = part(
    "pg_conversion c JOIN spaces s ON s.oid = c.connamespace",
    "'conversion'",
    named("c.conname"),
    definition=words(
        when("c.condefault", "default"),
        "'for ' || pg_encoding_to_char(c.conforencoding)",
        "'to ' || pg_encoding_to_char(c.contoencoding)",
        function("c.conproc", "function"),
    ),
    owner="c.conowner",
)

# Operators ---------------------------------------------------------------------------------------

_OPERATORS = part(
    "pg_operator o JOIN spaces s ON s.oid = o.oprnamespace",
    "'operator'",
    "o.oid::regoperator::text",
    definition=words(
        function("o.oprcode", "function"),
        "'commutator ' || nullif(o.oprcom, 0)::regoperator",
        "'negator ' || nullif(o.oprnegate, 0)::regoperator",
        function("o.oprrest", "restrict"),
        function("o.oprjoin", "join"),
        when("o.oprcanhash", "hashes"),
        when("o.oprcanmerge", "merges"),
    ),
    owner="o.oprowner",
)

_OPERATOR_CLASSES = part(
    "pg_opclass c JOIN spaces s ON s.oid = c.opcnamespace JOIN pg_am am ON am.oid = c.opcmethod "
    "JOIN pg_opfamily f ON f.oid = c.opcfamily JOIN pg_namespace fs ON fs.oid = f.opfnamespace",
    "'operator class'",
    named("c.opcname") + " || ' using ' || quote_ident(am.amname)",
    definition=words(
        when("c.opcdefault", "default"),
        "'for type ' || format_type(c.opcintype, NULL)",
        "'family ' || quote_ident(fs.nspname) || '.' || quote_ident(f.opfname)",
        "'storage ' || format_type(nullif(c.opckeytype, 0), NULL)",
    ),
    owner="c.opcowner",
)

_IN_FAMILIES = """
SELECT oid, amopfamily AS family, 'pg_operator'::regclass AS classid, amopopr AS objid,
    concat('operator ', amopstrategy, ' ', amopopr::regoperator) AS text FROM pg_amop
UNION ALL
SELECT oid, amprocfamily, 'pg_proc'::regclass, amproc,
    concat('function ', amprocnum, ' ', amproc::regprocedure) FROM pg_amproc"""

_OPERATOR_FAMILIES = part(
    "pg_opfamily f JOIN spaces s ON s.oid = f.opfnamespace JOIN pg_am am ON am.oid = f.opfmethod "
    "LEFT JOIN (SELECT family, string_agg(text, E'\\n' ORDER BY text COLLATE \"C\") AS texts "
    f"FROM ({_IN_FAMILIES}) one WHERE family >= {FIRST_OWN_OID} GROUP BY family) own "
    "ON own.family = f.oid",
    "'operator family'",
    named("f.opfname") + " || ' using ' || quote_ident(am.amname)",
    definition="own.texts",
    owner="f.opfowner",
)

#: Those of the server to which somebody has added; but for what extensions add of their own.
_EXTENDED_FAMILIES = _OPERATOR_FAMILIES._replace(
    source="pg_opfamily f JOIN spaces s ON s.oid = f.opfnamespace "
    "JOIN pg_am am ON am.oid = f.opfmethod "
    "JOIN (SELECT family, string_agg(text, E'\\n' ORDER BY text COLLATE \"C\") AS texts "
    f"FROM ({_IN_FAMILIES}) one LEFT JOIN members m USING (classid, objid) "
    f"WHERE oid >= {FIRST_OWN_OID} AND m.objid IS NULL GROUP BY family) own ON own.family = f.oid",
    where=f"f.oid < {FIRST_OWN_OID}",
    owner="NULL",
    first=0,
)

# Text search -------------------------------------------------------------------------------------

_SEARCH_CONFIGURATIONS = part(
    "pg_ts_config c JOIN spaces s ON s.oid = c.cfgnamespace "
    "JOIN pg_ts_parser p ON p.oid = c.cfgparser",
    "'text search configuration'",
    named("c.cfgname"),
    definition="concat_ws(E'\\n', 'parser ' || quote_ident(p.prsname), "
    "(SELECT string_agg(concat(t.alias, ' with ', d.names), E'\\n' ORDER BY t.alias) "
    "FROM (SELECT maptokentype, string_agg(mapdict::regdictionary::text, ', ' ORDER BY mapseqno) "
    "AS names FROM pg_ts_config_map WHERE mapcfg = c.oid GROUP BY maptokentype) d "
    "JOIN ts_token_type(c.cfgparser) t ON t.tokid = d.maptokentype))",
    owner="c.cfgowner",
)

_SEARCH_DICTIONARIES = part(
    "pg_ts_dict d JOIN spaces s ON s.oid = d.dictnamespace "
    "JOIN pg_ts_template t ON t.oid = d.dicttemplate",
    "'text search dictionary'",
    named("d.dictname"),
    definition=words("'template ' || quote_ident(t.tmplname)", "'(' || d.dictinitoption || ')'"),
    owner="d.dictowner",
)

_SEARCH_PARSERS = part(
    "pg_ts_parser p JOIN spaces s ON s.oid = p.prsnamespace",
    "'text search parser'",
    named("p.prsname"),
    definition=words(
        function("p.prsstart", "start"),
        function("p.prstoken", "gettoken"),
        function("p.prsend", "end"),
        function("p.prsheadline", "headline"),
        function("p.prslextype", "lextypes"),
    ),
)

_SEARCH_TEMPLATES = part(
    "pg_ts_template t JOIN spaces s ON s.oid = t.tmplnamespace",
    "'text search template'",
    named("t.tmplname"),
    definition=words(function("t.tmplinit", "init"), function("t.tmpllexize", "lexize")),
)

#: What has a schema, but is no table.
OBJECTS: tuple[Part, ...] = (
    _FUNCTIONS,
    _TYPES,
    _DOMAIN_CONSTRAINTS,
    _COLLATIONS,
    _CONVERSIONS,
    _OPERATORS,
    _OPERATOR_CLASSES,
    _OPERATOR_FAMILIES,
    _EXTENDED_FAMILIES,
    _SEARCH_CONFIGURATIONS,
    _SEARCH_DICTIONARIES,
    _SEARCH_PARSERS,
    _SEARCH_TEMPLATES,
)
