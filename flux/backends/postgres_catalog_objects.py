"""What a fingerprint tells of PostgreSQL's functions, types and all else. Pure: text alone."""

from __future__ import annotations

from flux.backends.postgres_catalog_parts import (
    ENABLED,
    FIRST_OWN_OID,
    NEVER,
    Part,
    function,
    listed,
    named,
    one_of,
    options,
    part,
    role,
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

# Operators ---------------------------------------------------------------------------------------

_CASTS = part(
    "pg_cast c",
    "'cast'",
    "'(' || format_type(c.castsource, NULL) || ' AS ' || format_type(c.casttarget, NULL) || ')'",
    where=f"c.oid >= {FIRST_OWN_OID}",
    definition=words(
        one_of("c.castmethod", b="without function", i="with inout"),
        "'with function ' || nullif(c.castfunc, 0)::regprocedure",
        one_of("c.castcontext", a="as assignment", i="as implicit"),
    ),
)

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

_OPERATOR_FAMILIES = part(
    "pg_opfamily f JOIN spaces s ON s.oid = f.opfnamespace JOIN pg_am am ON am.oid = f.opfmethod",
    "'operator family'",
    named("f.opfname") + " || ' using ' || quote_ident(am.amname)",
    definition="concat_ws(E'\\n', "
    "(SELECT string_agg(concat('operator ', amopstrategy, ' ', amopopr::regoperator), E'\\n' "
    'ORDER BY amopstrategy, amopopr::regoperator::text COLLATE "C") '
    "FROM pg_amop WHERE amopfamily = f.oid), "
    "(SELECT string_agg(concat('function ', amprocnum, ' ', amproc::regprocedure), E'\\n' "
    'ORDER BY amprocnum, amproc::regprocedure::text COLLATE "C") '
    "FROM pg_amproc WHERE amprocfamily = f.oid))",
    owner="f.opfowner",
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

# What is in no schema ----------------------------------------------------------------------------

_EXTENSIONS = part(
    "pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace",
    "'extension'",
    "quote_ident(e.extname)",
    definition=words("'version ' || e.extversion", "'schema ' || quote_ident(n.nspname)"),
)

_EVENT_TRIGGERS = part(
    "pg_event_trigger t",
    "'event trigger'",
    "quote_ident(t.evtname)",
    definition=words(
        "'on ' || t.evtevent",
        listed("t.evttags", "when tag in"),
        "'execute function ' || t.evtfoid::regprocedure",
        one_of("t.evtenabled", **ENABLED),
    ),
    owner="t.evtowner",
)

_LANGUAGES = part(
    "pg_language l",
    "'language'",
    "quote_ident(l.lanname)",
    where=f"l.oid >= {FIRST_OWN_OID}",
    definition=words(
        when("l.lanpltrusted", "trusted"),
        function("l.lanplcallfoid", "handler"),
        function("l.laninline", "inline"),
        function("l.lanvalidator", "validator"),
    ),
    owner="l.lanowner",
    acl="l.lanacl",
    acl_kind="'l'",
)

_ACCESS_METHODS = part(
    "pg_am a",
    "'access method'",
    "quote_ident(a.amname)",
    where=f"a.oid >= {FIRST_OWN_OID}",
    definition=words(one_of("a.amtype", t="table", i="index"), function("a.amhandler", "handler")),
)

_WRAPPERS = part(
    "pg_foreign_data_wrapper w",
    "'foreign data wrapper'",
    "quote_ident(w.fdwname)",
    definition=words(
        function("w.fdwhandler", "handler"),
        function("w.fdwvalidator", "validator"),
        options("w.fdwoptions"),
    ),
    owner="w.fdwowner",
    acl="w.fdwacl",
    acl_kind="'F'",
)

_SERVERS = part(
    "pg_foreign_server v JOIN pg_foreign_data_wrapper w ON w.oid = v.srvfdw",
    "'server'",
    "quote_ident(v.srvname)",
    definition=words(
        "'type ' || quote_literal(v.srvtype)",
        "'version ' || quote_literal(v.srvversion)",
        "'foreign data wrapper ' || quote_ident(w.fdwname)",
        options("v.srvoptions"),
    ),
    owner="v.srvowner",
    acl="v.srvacl",
    acl_kind="'S'",
)

_USER_MAPPINGS = part(
    "pg_user_mappings m",
    "'user mapping'",
    f"'for ' || {role('m.umuser')}",
    catalog="pg_user_mapping",
    id="m.umid",
    part_of="'server ' || quote_ident(m.srvname)",
    definition=listed(  # by their names alone: they are secrets
        "ARRAY(SELECT split_part(o, '=', 1) FROM unnest(m.umoptions) AS o)", "options"
    ),
)

_PUBLICATIONS = part(
    "pg_publication p",
    "'publication'",
    "quote_ident(p.pubname)",
    definition=words(
        when("p.puballtables", "all tables"),
        when("p.pubinsert", "insert"),
        when("p.pubupdate", "update"),
        when("p.pubdelete", "delete"),
        when("p.pubtruncate", "truncate"),
        when("p.pubviaroot", "via root"),
        when("to_jsonb(p) ->> 'pubgencols' = 's'", "generated columns"),
    ),
    owner="p.pubowner",
)

_PUBLISHED_TABLES = part(
    "pg_publication_rel l JOIN relations r ON r.oid = l.prrelid "
    "JOIN pg_publication p ON p.oid = l.prpubid",
    "'table'",
    "r.name",
    part_of="'publication ' || quote_ident(p.pubname)",
    definition="''",
    until=150000,
)

_PUBLISHED_TABLES_15 = _PUBLISHED_TABLES._replace(
    definition=words(
        listed(
            "ARRAY(SELECT quote_ident(attname) FROM pg_attribute "
            "WHERE attrelid = l.prrelid AND attnum = ANY (l.prattrs))",
            "columns",
        ),
        "'where ' || pg_get_expr(l.prqual, l.prrelid)",
    ),
    since=150000,
    until=NEVER,
)

_PUBLISHED_SCHEMAS = part(
    "pg_publication_namespace l JOIN spaces s ON s.oid = l.pnnspid "
    "JOIN pg_publication p ON p.oid = l.pnpubid",
    "'tables in schema'",
    "s.name",
    part_of="'publication ' || quote_ident(p.pubname)",
    since=150000,
)

_DEFAULT_PRIVILEGES = part(
    "pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace",
    "'default privileges'",
    words(
        f"'of ' || {role('d.defaclrole')}",
        "'in schema ' || quote_ident(n.nspname)",
        "'on ' || "
        "CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' "
        "WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' "
        "ELSE 'large objects' END",
    ),
    acl="d.defaclacl",
    # In a schema they come on top of the others: the default of a column is nothing.
    acl_kind="CASE WHEN n.oid IS NOT NULL THEN 'c' WHEN d.defaclobjtype = 'S' THEN 's' "
    "ELSE d.defaclobjtype END",
    grantor="d.defaclrole",
)

#: Functions, types, and all that is not about one table.
OBJECTS: tuple[Part, ...] = (
    _FUNCTIONS,
    _TYPES,
    _DOMAIN_CONSTRAINTS,
    _COLLATIONS,
    _CASTS,
    _OPERATORS,
    _OPERATOR_CLASSES,
    _OPERATOR_FAMILIES,
    _SEARCH_CONFIGURATIONS,
    _SEARCH_DICTIONARIES,
    _EXTENSIONS,
    _EVENT_TRIGGERS,
    _LANGUAGES,
    _ACCESS_METHODS,
    _WRAPPERS,
    _SERVERS,
    _USER_MAPPINGS,
    _PUBLICATIONS,
    _PUBLISHED_TABLES,
    _PUBLISHED_TABLES_15,
    _PUBLISHED_SCHEMAS,
    _DEFAULT_PRIVILEGES,
)
