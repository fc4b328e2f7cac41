"""What a migration may do to rows that are there already, which a scratch database lacks. Pure.

There are only the rows that migrations insert. Whether it matters in which order two migrations
run is to be seen there only where neither works on other rows. So a statement has to be of a kind
that is known here; what is not known may do anything, and with that nothing is proven.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from flux.row_tables import RowTables
from flux.statements import Dialect, SplitError, Statement, tokens


class Effect(IntEnum):
    """What a statement may do, from the least to the most."""

    HARMLESS = 0  # it touches no row that is there, and nothing of how rows are changed
    SHAPES = 1  # it touches none and reads none, but others may change rows otherwise after it
    ROWS = 2  # it works on rows that are there, and on nothing but rows
    ANYTHING = 3  # it may also look at the catalog, and do what is found nowhere in its text


class Part(NamedTuple):
    """A plain statement: it works on these columns of this table, and each row by itself."""

    table: str
    columns: frozenset[str]


class RowWork(NamedTuple):
    """What a migration may do: the most of what its statements may.

    `words` are all names in it, and `made` those that are new with it, in lower case. `parts` are
    its plain statements; None where something else of it is not harmless.
    """

    effect: Effect = Effect.HARMLESS
    words: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()
    parts: tuple[Part, ...] | None = ()


#: Of a Python function, and of what cannot be read.
ANYTHING = RowWork(Effect.ANYTHING, parts=None)

# The words that are known ------------------------------------------------------------------------


def _set(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).upper().split())


_TYPES = _set(
    "int integer int2 int4 int8 bigint smallint text varchar character varying char numeric",
    "decimal real double precision float boolean bool date time timestamp timestamptz without",
    "with zone json jsonb uuid bytea blob interval",
)
_LITERALS = _set("null true false default current_timestamp current_date current_time")
#: They look at nothing but their arguments, the time, and chance.
_FUNCTIONS = _set(
    "coalesce nullif lower upper initcap trim ltrim rtrim btrim length char_length substr",
    "substring replace concat concat_ws left right lpad rpad split_part strpos position instr",
    "round floor ceil ceiling trunc abs mod power sqrt sign greatest least cast extract date_part",
    "date_trunc to_char to_date to_timestamp to_number now datetime strftime julianday md5",
    "random gen_random_uuid count sum min max avg row_number rank iif ifnull",
)
#: What else stands before a parenthesis.
_CLAUSES = _set(
    "values in and or not exists any all some select distinct where set from by on as using over",
    "filter when then else case between like having join lateral union except intersect array row",
    "key check unique returning limit offset is",
)
_CALLS = _TYPES | _FUNCTIONS | _CLAUSES
#: A plain UPDATE holds these, names of columns, and what may be called.
_PLAIN = _TYPES.union(
    _LITERALS,
    _FUNCTIONS,
    _set("where and or not in is between like ilike case when then else end as escape"),
)
#: A new column has these behind its name.
_OF_COLUMN = _TYPES | _LITERALS | {"NOT"}
#: What may be added to a table in place of a column.
_NO_COLUMN = _set("constraint check unique primary foreign exclude if")
#: A table with these takes something over from others, or has others take over from it.
_TIES = _set("like inherits partition of nextval on")
#: Names in which the catalog itself is looked at.
_CATALOG = re.compile(
    r"(pg_|information_schema|sqlite_|pragma_|_flux|current_schema)"
    r"|reg(class|proc|type|oper|role|namespace|config|dictionary|collation)"
)
_SHAPING = re.compile(
    r"CREATE (OR REPLACE )?(CONSTRAINT )?(FUNCTION|PROCEDURE|TRIGGER|RULE|POLICY|VIEW) "
)
_SHAPING_TABLE = re.compile(
    r"ADD (CONSTRAINT \S+ )?(CHECK|UNIQUE|PRIMARY KEY|FOREIGN KEY) "
    r"|ALTER (COLUMN )?\S+ (SET DEFAULT|SET NOT NULL|DROP DEFAULT|DROP NOT NULL)\b"
)
_WORKS_ON_ROWS = re.compile(
    r"(?:(?P<target>UPDATE|DELETE FROM|INSERT INTO|MERGE INTO|REPLACE INTO|TRUNCATE(?: TABLE)?)"
    r"|DROP TABLE|ALTER TABLE|CREATE TABLE) "
)
_MAKES = re.compile(
    r"CREATE (UNLOGGED )?(TABLE|SEQUENCE|TYPE|DOMAIN|VIEW|SCHEMA) (IF NOT EXISTS )?"
)
_GRANTS = re.compile(r"COMMENT ON |(GRANT|REVOKE) .* ON ")
_SETS = re.compile(r"SET ((LOCAL|SESSION) )?(LOCK_TIMEOUT|STATEMENT_TIMEOUT) ")


class _Said(NamedTuple):
    """A statement, piece by piece.

    In `shape` are words in upper case and characters; `"` stands for a name in quotation marks, `'`
    for a literal, and `0` for a number. In `names` are the same as the names that they may be.
    """

    shape: list[str]
    names: list[str]

    @property
    def text(self) -> str:
        return " ".join(self.shape) + " "

    def name_at(self, at: int) -> tuple[str, int]:
        """The last part of the name that begins at a place, and where it ends."""
        while self.shape[at + 1 : at + 2] == ["."]:
            at += 2
        return (self.names[at], at + 1) if at < len(self.names) else ("", at)


def _said(text: str, dialect: Dialect) -> _Said:
    said = _Said([], [])
    for kind, piece in tokens(text, dialect):
        if kind == "word":
            said.shape.append(piece.upper())
        elif kind == "quoted identifier":
            said.shape.append('"')
        elif len(kind) > 1 and kind != piece:
            said.shape.append("'")
        elif piece[0] in "$0123456789":
            said.shape.append("0")
        elif piece.isalnum():  # of E'…' and its like
            continue
        else:
            said.shape.append(piece)
        # SQLite takes even a literal for a name.
        said.names.append((piece if kind in ("word", piece) else piece[1:-1]).lower())
    return said


# One statement -----------------------------------------------------------------------------------


def row_work(statements: Iterable[Statement], dialect: Dialect, tables: RowTables) -> RowWork:
    """What the statements of a migration may do to rows that are there already."""
    effect = Effect.HARMLESS
    words: set[str] = set()
    made: set[str] = set()
    own: set[str] = set()
    parts: list[Part] | None = []
    for statement in statements:
        try:
            said = _said(statement.text, dialect)
        except SplitError:
            return ANYTHING
        words.update(said.names)
        this, part = _effect(said, tables, own), _part(said, tables)
        if not tables.is_quiet or re.search('[uU]&"', statement.text):
            this = Effect.ANYTHING
        effect = max(effect, this)
        if (makes := _MAKES.match(said.text)) and this is Effect.HARMLESS:
            name, _ = said.name_at(len(makes[0].split()))
            made |= {name, f"_{name}"}  # the latter is the type of its arrays
            if makes[2] == "TABLE" and not makes[3]:
                own.add(name)
        if part and this is not Effect.ANYTHING:
            parts = None if parts is None else [*parts, part]
        elif this is not Effect.HARMLESS and not _is_seed(said, tables):
            parts = None
    return RowWork(
        effect, frozenset(words), frozenset(made), None if parts is None else tuple(parts)
    )


def _effect(said: _Said, tables: RowTables, own: set[str]) -> Effect:
    """What one statement may do; `own` are the tables that its migration has made before it."""
    text = said.text
    if _GRANTS.match(text) or _SETS.match(text):
        return Effect.HARMLESS
    if text.startswith("SELECT "):
        return Effect.HARMLESS if _is_literal(said.shape[1:]) else Effect.ANYTHING
    if _MAKES.match(text) and _makes_harmlessly(said):
        return Effect.HARMLESS
    if index := re.match(r"CREATE (UNIQUE )?INDEX ", text):
        expressions = said.shape[said.shape.index("(") :] if "(" in said.shape else ["", "("]
        if not _calls_known(expressions) or tables.code & set(said.names):
            return Effect.ANYTHING
        return Effect.SHAPES if index[1] else Effect.HARMLESS
    if _SHAPING.match(text) or re.match(r"ALTER TYPE .*ADD VALUE ", text):
        return Effect.SHAPES
    if not _is_open(said, tables):
        return Effect.ANYTHING
    if _is_seed(said, tables):
        name, _ = said.name_at(2)
        return Effect.HARMLESS if name in own else Effect.SHAPES
    if _only_shapes(said):
        return Effect.SHAPES
    return Effect.ROWS if _works_on_rows_alone(said, tables) else Effect.ANYTHING


def _makes_harmlessly(said: _Said) -> bool:
    """Whether what is made has nothing to do with what is there."""
    words = set(said.shape[1:])
    if "TABLE" in said.shape[1:3]:
        return not words & _TIES and "AS" not in _outside(said.shape)
    return "SCHEMA" not in said.shape[1:2] or "CREATE" not in words


def _is_open(said: _Said, tables: RowTables) -> bool:
    """Whether all that a statement does is in its text."""
    return (
        not {"EXECUTE", "CALL"} & set(said.shape)
        and not any(map(_CATALOG.match, said.names))
        and not tables.code & set(said.names)
        and _calls_known(said.shape)
    )


def _calls_known(shape: Sequence[str]) -> bool:
    """Whether what stands before parentheses is known, or is the name of a table."""
    for at, mark in enumerate(shape):
        if mark != "(" or not at or not (shape[at - 1] == '"' or _is_word(shape[at - 1])):
            continue
        start = at - 1
        while start >= 2 and shape[start - 1] == ".":
            start -= 2
        if shape[start - 1 : start] in (["INTO"], ["TABLE"], ["REFERENCES"]):
            continue
        if start != at - 1 or shape[start] not in _CALLS:
            return False
    return True


def _is_seed(said: _Said, tables: RowTables) -> bool:
    """Whether a statement puts rows of literals into a table that is simply one."""
    if said.shape[:2] != ["INSERT", "INTO"]:
        return False
    name, at = said.name_at(2)
    if said.shape[at : at + 1] == ["("]:
        at = said.shape.index(")", at) + 1 if ")" in said.shape[at:] else at
    rest = said.shape[at:]
    is_plain = name in tables.columns and not tables.odd & {name}
    return is_plain and rest[:1] in (["VALUES"], ["SELECT"]) and _is_literal(rest[1:])


def _is_literal(shape: Sequence[str]) -> bool:
    words = {word for word in shape if _is_word(word)}
    return '"' not in shape and words <= _LITERALS | _FUNCTIONS | _TYPES


def _only_shapes(said: _Said) -> bool:
    """Whether a statement only says what rows may be from now on, or adds a column to all."""
    if said.shape[:2] == ["CREATE", "TABLE"]:
        return "AS" not in _outside(said.shape) and "EXECUTE" not in said.shape
    if said.shape[:2] != ["ALTER", "TABLE"] or "," in _outside(said.shape):
        return False
    _, at = said.name_at(2)
    action = " ".join(said.shape[at:]) + " "
    return bool(_SHAPING_TABLE.match(action)) or bool(_new_column(said))


def _works_on_rows_alone(said: _Said, tables: RowTables) -> bool:
    """Whether a statement works on rows of tables that are simply tables."""
    found = _WORKS_ON_ROWS.match(said.text)
    if not found or "CASCADE" in said.shape or tables.odd & set(said.names):
        return False
    target, _ = said.name_at(len(found[0].split()))
    return not found["target"] or target in tables.columns


# Plain statements --------------------------------------------------------------------------------


def _part(said: _Said, tables: RowTables) -> Part | None:
    """What a plain statement works on: an UPDATE of a row by itself, or a new column."""
    at = 2 if said.shape[:2] == ["ALTER", "TABLE"] else 1
    table = said.names[at] if at < len(said.names) and _is_word(said.shape[at]) else ""
    columns = tables.columns.get(table, frozenset())
    if table in tables.odd or not columns:
        return None
    if at == 2:
        new = _new_column(said)
        return Part(table, frozenset([new])) if new else None
    if said.shape[0] != "UPDATE" or said.shape[2:3] != ["SET"] or table in said.names[2:]:
        return None
    pairs = list(zip(said.shape[3:], said.names[3:], strict=True))
    names = {name for word, name in pairs if _is_word(word)}
    known = {name for word, name in pairs if word in _PLAIN}
    if '"' in said.shape or not names <= columns | known:
        return None
    return Part(table, columns & set(said.names))


def _new_column(said: _Said) -> str:
    """The name of the column that is added, if it gets but a literal in the rows that are there."""
    _, at = said.name_at(2)
    if said.shape[at : at + 1] != ["ADD"]:
        return ""
    at += 2 if said.shape[at + 1 : at + 2] == ["COLUMN"] else 1
    rest = said.shape[at + 1 :]
    words = {word for word in rest if _is_word(word)}
    if not words or not words <= _OF_COLUMN or '"' in rest or "," in _outside(rest):
        return ""
    is_name = _is_word(said.shape[at]) and said.shape[at] not in _NO_COLUMN
    return said.names[at] if is_name else ""


def _outside(shape: Sequence[str]) -> list[str]:
    """What is not within parentheses."""
    found, depth = [], 0
    for piece in shape:
        depth += (piece == "(") - (piece == ")")
        if not depth:
            found.append(piece)
    return found


def _is_word(piece: str) -> bool:
    return piece[0] == "_" or piece[0].isalpha() or piece[0] > "\x7f"


# Two migrations ----------------------------------------------------------------------------------


def tables_at_stake(one: RowWork, other: RowWork, tables: RowTables) -> set[str]:
    """The tables of whose rows it may depend in which order two migrations run; none: it does not.

    Where it does, and no table is named by both, an empty name stands for whatever rows.
    """
    if not _meet(one, other):
        return set()
    return set(one.words & other.words & (tables.odd | set(tables.columns))) or {""}


def _meet(one: RowWork, other: RowWork) -> bool:
    effects = {one.effect, other.effect}
    if Effect.ANYTHING in effects:
        return True
    if Effect.ROWS not in effects:
        return False
    if one.made & other.words or other.made & one.words:  # a new table may hide another
        return True
    if one.parts is None or other.parts is None:
        return Effect.HARMLESS not in effects
    return any(
        this.table == that.table and bool(this.columns & that.columns)
        for this in one.parts
        for that in other.parts
    )
