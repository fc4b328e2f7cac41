"""What a fingerprint tells of what PostgreSQL has in no schema. Pure: text alone."""

from __future__ import annotations

from flux.backends.postgres_catalog_parts import (
    ENABLED,
    NEVER,
    Part,
    function,
    listed,
    one_of,
    options,
    part,
    role,
    secrets,
    when,
    words,
)

_CASTS = part(
    "pg_cast c",
    "'cast'",
    "'(' || format_type(c.castsource, NULL) || ' AS ' || format_type(c.casttarget, NULL) || ')'",
    definition=words(
        one_of("c.castmethod", b="without function", i="with inout"),
        "'with function ' || nullif(c.castfunc, 0)::regprocedure",
        one_of("c.castcontext", a="as assignment", i="as implicit"),
    ),
)

_EXTENSIONS = part(
    "pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace",
    "'extension'",
    "quote_ident(e.extname)",
    definition=words("'version ' || e.extversion", "'schema ' || quote_ident(n.nspname)"),
    first=0,
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
    definition=words(one_of("a.amtype", t="table", i="index"), function("a.amhandler", "handler")),
)

_WRAPPERS = part(
    "pg_foreign_data_wrapper w",
    "'foreign data wrapper'",
    "quote_ident(w.fdwname)",
    definition=words(
        function("w.fdwhandler", "handler"),
        function("w.fdwvalidator", "validator"),
        options("w.fdwoptions", "w.fdwname"),
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
        options("v.srvoptions", "v.srvname"),
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
    definition=secrets("m.umoptions", f"m.srvname, ' ', {role('m.umuser')}"),
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

#: But for how it connects, where a password may be.
_SUBSCRIPTIONS = part(
    "pg_subscription b",
    "'subscription'",
    "quote_ident(b.subname)",
    where="b.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    definition=words(
        listed("ARRAY(SELECT quote_ident(o) FROM unnest(b.subpublications) AS o)", "publications"),
        when("NOT b.subenabled", "disabled"),
        "'slot ' || quote_literal(b.subslotname)",
    ),
    owner="b.subowner",
)

_TRANSFORMS = part(
    "pg_transform f JOIN pg_language l ON l.oid = f.trflang",
    "'transform'",
    "'for ' || format_type(f.trftype, NULL) || ' language ' || quote_ident(l.lanname)",
    definition=words(
        "'from sql ' || nullif(f.trffromsql, 0)::regprocedure",
        "'to sql ' || nullif(f.trftosql, 0)::regprocedure",
    ),
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

#: Extensions, servers, publications and their like.
SCHEMALESS: tuple[Part, ...] = (
    _CASTS,
    _EXTENSIONS,
    _EVENT_TRIGGERS,
    _LANGUAGES,
    _TRANSFORMS,
    _ACCESS_METHODS,
    _WRAPPERS,
    _SERVERS,
    _USER_MAPPINGS,
    _PUBLICATIONS,
    _PUBLISHED_TABLES,
    _PUBLISHED_TABLES_15,
    _PUBLISHED_SCHEMAS,
    _SUBSCRIPTIONS,
    _DEFAULT_PRIVILEGES,
)
