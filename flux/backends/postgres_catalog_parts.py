"""The parts of a query for fingerprints, and the SQL expressions they are made of. Pure.

Each part is a query over one catalog, for `postgres_catalog` to put together. There, `spaces` are
the schemas in which somebody may have made things, and `relations` what is in them of tables and
their like, but what extensions or flux have made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: A version of the server that is never reached.
NEVER = 10**6
#: The first number of an object that did not come with the server.
FIRST_OWN_OID = 16384


class Part(NamedTuple):
    """One kind of thing: where its rows come from, and SQL expressions for what is told of them.

    `part_of` is the label of what it belongs to. What belongs to nothing is an object, and is
    left out where it is an extension's. What came with the server is left out, too, below the
    number `first`. `since` is the first version of the server that has it, `until` the first that
    does not.
    """

    source: str  # begins with a catalog and its alias
    kind: str
    name: str
    definition: str = "NULL"
    where: str = "true"
    part_of: str = "''"
    owner: str = "NULL"
    acl: str = "NULL"
    acl_kind: str = "NULL"  # as acldefault() has it
    grantor: str = "NULL"  # where it is not the owner, or no owner is told
    catalog: str = ""
    id: str = ""
    sub: str = "0"
    first: int = FIRST_OWN_OID
    since: int = 0
    until: int = NEVER


def part(source: str, kind: str, name: str, **more: Any) -> Part:
    """A part whose objects are those of the catalog that the source begins with."""
    catalog, alias, *_ = source.split()
    return Part(source, kind, name, **{"catalog": catalog, "id": f"{alias}.oid", **more})


#: How the role is called that migrates, which owns flux's history, or is the one that reads where
#: there is none: its name may be another one on each machine.
MIGRATOR = "CURRENT_USER"


def role(oid: str) -> str:
    """The expression for a role's name; 0 is everybody."""
    return (
        f"CASE {oid} WHEN 0 THEN 'public' WHEN (SELECT id FROM migrator) "
        f"THEN '{MIGRATOR}' ELSE quote_ident(pg_get_userbyid({oid})) END"
    )


def words(*expressions: str) -> str:
    """The expression for words in a row, of which each may be NULL."""
    return f"concat_ws(' ', {', '.join(expressions)})"


def when(condition: str, text: str) -> str:
    """The expression for words that are said on a condition."""
    return f"CASE WHEN {condition} THEN '{text}' END"


def one_of(expression: str, **words: str) -> str:
    """The expression for the word that stands for a letter of the catalog."""
    cases = " ".join(f"WHEN '{letter}' THEN '{word}'" for letter, word in words.items())
    return f"CASE {expression}::text {cases} END"


def listed(array: str, opening: str) -> str:
    """The expression for the elements of an array in order of their text, in parentheses."""
    return (
        f"(SELECT '{opening} (' || string_agg(o, ', ' ORDER BY o COLLATE \"C\") || ')' "
        f"FROM unnest({array}) AS o)"
    )


def options(array: str, of: str) -> str:
    """The expression for options of something foreign, which is called `of`; no secret is told."""
    shown = f"CASE WHEN o ~* '{_SENSITIVE}' THEN {_hidden('o', of)} ELSE o END"
    return listed(f"ARRAY(SELECT {shown} FROM unnest({array}) AS o)", "options")


def secrets(array: str, of: str) -> str:
    """The same for options that are all secrets."""
    return listed(f"ARRAY(SELECT {_hidden('o', of)} FROM unnest({array}) AS o)", "options")


_SENSITIVE = "^[^=]*(pass|secret|token|key|auth|cred)[^=]*="


def _hidden(option: str, of: str) -> str:
    """The expression for an option whose value is a secret: its name, and whether it is the same.

    What stands for a value is short and another one for each object, so that it tells little else.
    """
    text = f"convert_to(concat({of}, ' ', {option}), getdatabaseencoding())"
    digest = f"left(encode(sha256({text}), 'hex'), 8)"
    return f"concat(split_part({option}, '=', 1), '=*** (', {digest}, ')')"


def named(name: str) -> str:
    """The expression for a name with its schema, which is `s` of `spaces`."""
    return f"s.name || '.' || quote_ident({name})"


def function(oid: str, opening: str) -> str:
    """The expression for a function's name after words; NULL where there is none."""
    return f"'{opening} ' || nullif({oid}::regproc::text, '-')"


#: What is said of a trigger or a rule that is not simply enabled.
ENABLED = {"D": "disabled", "R": "enabled for replicas", "A": "enabled always"}
