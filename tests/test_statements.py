"""SQL text → statements. What PostgreSQL accepts here was run against psql and a server 15."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from functools import partial
from itertools import islice

import pytest

from flux import statements
from flux.statements import (
    Dialect,
    MetaCommand,
    SplitError,
    Statement,
    UnterminatedError,
    leading_words,
    split,
    words,
)


def texts(text: str, dialect: Dialect) -> list[str]:
    """The texts of all pieces, each of them checked to be where it says it is."""
    pieces = split(text, dialect)
    for piece in pieces:
        assert text[piece.start : piece.start + len(piece.text)] == piece.text
        before = text[: piece.start].split("\n")
        assert (piece.line, piece.column) == (len(before), len(before[-1]) + 1)
    return [piece.text for piece in pieces]


def rows(text: str) -> list[str | None]:
    return [piece.copy_data for piece in split(text, "postgres") if isinstance(piece, Statement)]


ALL: tuple[Dialect, ...] = ("postgres", "sqlite", "generic")


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param(" \n\t\n", [], id="blank"),
        pytest.param(";", [], id="semicolon"),
        pytest.param(" ;; ;\n;", [], id="semicolons"),
        pytest.param("-- nothing; here", [], id="line-comment-without-newline"),
        pytest.param("/* nothing;\n here */\n-- either;\n", [], id="comments"),
        pytest.param("a", [("a", 1, 1)], id="no-semicolon"),
        pytest.param("a;", [("a", 1, 1)], id="semicolon-at-end"),
        pytest.param("a;b;;c", [("a", 1, 1), ("b", 1, 3), ("c", 1, 6)], id="one-line"),
        pytest.param("\n  a\n ;\n\n b ", [("a", 2, 3), ("b", 5, 2)], id="lines-and-columns"),
        pytest.param("é;\nüü;ö", [("é", 1, 1), ("üü", 2, 1), ("ö", 2, 4)], id="characters"),
        pytest.param("a -- b;\n;c", [("a", 1, 1), ("c", 2, 2)], id="line-comment-at-end"),
        pytest.param("a; -- DO NOT EDIT; ever", [("a", 1, 1)], id="comment-after-last"),
        pytest.param("a -- no semicolon", [("a", 1, 1)], id="comment-after-unended-last"),
        pytest.param("a /* b; */ ; c", [("a", 1, 1), ("c", 1, 14)], id="block-comment-at-end"),
        pytest.param("/* x */ a /* y; */ b -- z\n;", [("a /* y; */ b", 1, 9)],
                     id="comments-within"),
        pytest.param("a-- b\n-c", [("a-- b\n-c", 1, 1)], id="comment-touches-word"),
        pytest.param("a - -b / c * d;", [("a - -b / c * d", 1, 1)], id="operators"),
        pytest.param("select 'a;''b;';c", [("select 'a;''b;'", 1, 1), ("c", 1, 17)], id="string"),
        pytest.param("''';';b", [("''';'", 1, 1), ("b", 1, 7)], id="doubled-first"),
        pytest.param("'';b", [("''", 1, 1), ("b", 1, 4)], id="empty-string"),
        pytest.param("'\\';b", [("'\\'", 1, 1), ("b", 1, 5)], id="backslash-in-string"),
        pytest.param('"a;""b;";b', [('"a;""b;"', 1, 1), ("b", 1, 10)], id="identifier"),
        pytest.param("'\"';b;\"'\";c", [("'\"'", 1, 1), ("b", 1, 5), ('"\'"', 1, 7), ("c", 1, 11)],
                     id="quotes-in-quotes"),
        pytest.param("'--';'/*';b", [("'--'", 1, 1), ("'/*'", 1, 6), ("b", 1, 11)],
                     id="comments-in-strings"),
        pytest.param("a -- it's\n;b /* don't \" */", [("a", 1, 1), ("b", 2, 2)],
                     id="quotes-in-comments"),
        pytest.param("'x\ny';z", [("'x\ny'", 1, 1), ("z", 2, 4)], id="string-over-lines"),
        pytest.param("select 5 % 2, '%s', 'a%';", [("select 5 % 2, '%s', 'a%'", 1, 1)],
                     id="percent"),
        pytest.param("select '{\"a\":true}'; -- see :word", [("select '{\"a\":true}'", 1, 1)],
                     id="json-and-colon-word"),
        pytest.param("begin; a; commit; b; end;", [("begin", 1, 1), ("a", 1, 8), ("commit", 1, 11),
                                                   ("b", 1, 19), ("end", 1, 22)],
                     id="transaction-is-no-body"),
        pytest.param("create table trigger_x (a, b);c", [("create table trigger_x (a, b)", 1, 1),
                                                         ("c", 1, 31)], id="create-table"),
    ],
)  # fmt: skip
def test_statements_of_every_dialect(
    text: str, expected: list[tuple[str, int, int]], dialect: Dialect
) -> None:
    assert [(piece.text, piece.line, piece.column) for piece in split(text, dialect)] == expected
    assert texts(text, dialect) == [piece[0] for piece in expected]


ROUTINE = """\
CREATE OR REPLACE FUNCTION f(begin int, x text DEFAULT 'a;b') RETURNS int LANGUAGE SQL
BEGIN ATOMIC
  SELECT CASE WHEN x > 1 THEN CASE x WHEN 2 THEN 1 END ELSE 3 END;
  SELECT begin AS end, t.end FROM (SELECT 1 AS end) t; -- END;
  SELECT CASE WHEN true THEN 1 END end;
  ;
END"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("E'a\\';';b", ["E'a\\';'", "b"], id="escape-string"),
        pytest.param("e'a\\\\';b", ["e'a\\\\'", "b"], id="escaped-backslash"),
        pytest.param("E'a''\\';';b", ["E'a''\\';'", "b"], id="doubled-in-escape-string"),
        pytest.param("E'a'\n 'b\\';';b", ["E'a'\n 'b\\';'", "b"], id="escape-string-goes-on"),
        pytest.param("E'a' --'\n\n--'\n 'b\\';';b", ["E'a' --'\n\n--'\n 'b\\';'", "b"],
                     id="escape-string-goes-on-after-comments"),
        pytest.param("E'a' 'b\\';b", ["E'a' 'b\\'", "b"], id="no-newline-and-so-another-string"),
        pytest.param("'a'\n 'b\\';b", ["'a'\n 'b\\'", "b"], id="plain-string-goes-on"),
        pytest.param("date'\\';b", ["date'\\'", "b"], id="word-that-ends-in-e"),
        pytest.param("a$e'\\';b", ["a$e'\\'", "b"], id="word-with-dollar-that-ends-in-e"),
        pytest.param("U&'\\0061;';b", ["U&'\\0061;'", "b"], id="unicode-string"),
        pytest.param('U&"d\\0061;";b', ['U&"d\\0061;"', "b"], id="unicode-identifier"),
        pytest.param("B'0;';x'1f;';N'\\';b", ["B'0;'", "x'1f;'", "N'\\'", "b"], id="prefixes"),
        pytest.param("$$a;'b$$;b", ["$$a;'b$$", "b"], id="dollar-quote"),
        pytest.param("$a$;$b$;$$;$a;$A$;$a$;b", ["$a$;$b$;$$;$a;$A$;$a$", "b"], id="dollar-tag"),
        pytest.param("$é_1$;$é_1$;b", ["$é_1$;$é_1$", "b"], id="dollar-tag-not-ascii"),
        pytest.param("$$;$$language sql;b", ["$$;$$language sql", "b"], id="word-touches-dollar"),
        pytest.param("a$1$;b$1$", ["a$1$", "b$1$"], id="dollars-in-words"),
        pytest.param("é$a$;é$a$", ["é$a$", "é$a$"], id="dollars-in-words-not-ascii"),
        pytest.param("execute p($1,$2);b", ["execute p($1,$2)", "b"], id="parameters"),
        pytest.param("/* /* ; */ ; */ a", ["a"], id="nested-comment"),
        pytest.param("/*/ ; */a;/**/b;/***/c", ["a", "b", "c"], id="comment-edges"),
        pytest.param("a +-- b;\n c", ["a +-- b;\n c"], id="operator-then-comment"),
        pytest.param("a */* ; */ b;c", ["a */* ; */ b", "c"], id="operator-then-block-comment"),
        pytest.param("CREATE RULE r AS ON INSERT TO t DO (a; (b; c); d);e",
                     ["CREATE RULE r AS ON INSERT TO t DO (a; (b; c); d)", "e"], id="rule"),
        pytest.param("a); b", ["a)", "b"], id="parenthesis-too-many"),
        pytest.param("('(');b", ["('(')", "b"], id="parenthesis-in-string"),
        pytest.param("{R};b", [ROUTINE, "b"], id="begin-atomic"),
        pytest.param("create procedure p() begin atomic end;b",
                     ["create procedure p() begin atomic end", "b"], id="begin-atomic-empty"),
        pytest.param("/* x */ create--\nfunction f() begin /* ; */ atomic;;a;;\nend -- ;\n;b",
                     ["create--\nfunction f() begin /* ; */ atomic;;a;;\nend", "b"],
                     id="begin-atomic-with-comments"),
        pytest.param("create function f() begin atomic a; end",
                     ["create function f() begin atomic a; end"], id="begin-atomic-last"),
        pytest.param("create function f() begin atomic select 1 end; end;b",
                     ["create function f() begin atomic select 1 end; end", "b"], id="label-end"),
        pytest.param("create function f() return case when a then b end;b",
                     ["create function f() return case when a then b end", "b"], id="return-case"),
        pytest.param("create function atomic() as $$begin atomic;$$;b",
                     ["create function atomic() as $$begin atomic;$$", "b"],
                     id="atomic-is-a-name"),
        pytest.param("create function begin_atomic() as 'x';b",
                     ["create function begin_atomic() as 'x'", "b"], id="atomic-within-a-name"),
        pytest.param('create function "begin" (begin atomic) as $$$$;b',
                     ['create function "begin" (begin atomic) as $$$$', "b"],
                     id="begin-atomic-is-a-parameter"),
        pytest.param("create view v as select begin atomic from t;b",
                     ["create view v as select begin atomic from t", "b"], id="no-routine"),
        pytest.param("create type atomic as (a int);create or",
                     ["create type atomic as (a int)", "create or"], id="create-something"),
        pytest.param("DO $$BEGIN a; END$$;b", ["DO $$BEGIN a; END$$", "b"], id="do"),
        pytest.param("'[';select a[1];b", ["'['", "select a[1]", "b"], id="brackets-do-not-quote"),
    ],
)  # fmt: skip
def test_statements_of_postgres(text: str, expected: list[str]) -> None:
    assert texts(text.replace("{R}", ROUTINE), "postgres") == expected


TRIGGER = """\
CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN
  UPDATE a SET b = CASE WHEN c THEN ';' END;
  SELECT "end"; -- END;
END"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("`a;``b`;[a;'b];c", ["`a;``b`", "[a;'b]", "c"], id="identifiers"),
        pytest.param("x'00';b", ["x'00'", "b"], id="blob"),
        pytest.param("a /* /* */; b", ["a", "b"], id="comments-do-not-nest"),
        pytest.param("a; /* b;", ["a"], id="comment-to-the-end"),
        pytest.param("a; /*", ["a", "/*"], id="which-takes-a-character"),
        pytest.param("(a;b)", ["(a", "b)"], id="parentheses-do-not-count"),
        pytest.param("$$;$$", ["$$", "$$"], id="dollars-do-not-quote"),
        pytest.param("{T};b", [TRIGGER, "b"], id="trigger"),
        pytest.param("{T}", [TRIGGER], id="trigger-without-semicolon"),
        pytest.param("{T} -- ;\n", [TRIGGER], id="trigger-before-comment"),
        pytest.param("create trigger t begin a;/* ; */END/* ; */;b",
                     ["create trigger t begin a;/* ; */END", "b"], id="end-among-comments"),
        pytest.param("create trigger t begin a; end b; end;c",
                     ["create trigger t begin a; end b; end", "c"], id="end-not-alone"),
        pytest.param("explain query plan create trigger t begin a; end;b",
                     ["explain query plan create trigger t begin a; end", "b"], id="explain"),
        pytest.param("create table trigger(a);b", ["create table trigger(a)", "b"],
                     id="table-called-trigger"),
        pytest.param("drop trigger t;b", ["drop trigger t", "b"], id="drop-trigger"),
        pytest.param("PRAGMA foreign_keys=off;BEGIN;a;END;b",
                     ["PRAGMA foreign_keys=off", "BEGIN", "a", "END", "b"], id="transaction"),
        pytest.param(".tables\nselect 1;", [".tables\nselect 1"], id="no-shell-commands"),
        pytest.param("a \\ b;c", ["a \\ b", "c"], id="no-psql-commands"),
    ],
)  # fmt: skip
def test_statements_of_sqlite(text: str, expected: list[str]) -> None:
    assert texts(text.replace("{T}", TRIGGER), "sqlite") == expected


@pytest.mark.parametrize(
    ("text", "expected", "data"),
    [
        pytest.param("COPY t FROM stdin;\n1\tit's;\n\\N\t\\.x\n\\.\nb;",
                     ["COPY t FROM stdin", "b"], ["1\tit's;\n\\N\t\\.x\n", None], id="rows"),
        pytest.param("copy t from STDIN;\n\\.\nb", ["copy t from STDIN", "b"], ["", None],
                     id="no-rows"),
        pytest.param("copy t from stdin;\n1\n\\.", ["copy t from stdin"], ["1\n"],
                     id="no-newline-at-end"),
        pytest.param("copy t from stdin;\n\\.", ["copy t from stdin"], [""],
                     id="no-rows-and-no-newline"),
        pytest.param("copy t (a,b) from stdin with (format csv);\n\"x;\n\",y\n\\.\nb",
                     ["copy t (a,b) from stdin with (format csv)", "b"], ['"x;\n",y\n', None],
                     id="options"),
        pytest.param("copy t\n from /* ; */ stdin -- ;\n delimiter ',' ; -- ;\n1\n\\.\nb",
                     ["copy t\n from /* ; */ stdin -- ;\n delimiter ','", "b"], ["1\n", None],
                     id="comments"),
        pytest.param("copy t from stdin; /* ; */ -- ;\n1\n\\.\n", ["copy t from stdin"], ["1\n"],
                     id="comment-after"),
        pytest.param("copy t from stdout;\n1\n\\.\n", ["copy t from stdout"], ["1\n"],
                     id="from-stdout-is-stdin"),
        pytest.param("copy t from 'stdin';b", ["copy t from 'stdin'", "b"], [None, None],
                     id="file"),
        pytest.param("copy t from program 'x';b", ["copy t from program 'x'", "b"], [None, None],
                     id="program"),
        pytest.param("copy t to stdout;b", ["copy t to stdout", "b"], [None, None], id="to"),
        pytest.param("copy (select * from stdin) to stdout;b",
                     ["copy (select * from stdin) to stdout", "b"], [None, None], id="query"),
        pytest.param("copy_t from stdin;b", ["copy_t from stdin", "b"], [None, None],
                     id="word-like-copy"),
    ],
)  # fmt: skip
def test_rows_of_copy(text: str, expected: list[str], data: list[str | None]) -> None:
    assert texts(text, "postgres") == expected
    assert rows(text) == data


@pytest.mark.parametrize(
    ("text", "commands", "statements"),
    [
        pytest.param("\\restrict aB1\n\na;\n\\unrestrict aB1\n",
                     [("\\restrict aB1", 1, 1), ("\\unrestrict aB1", 4, 1)], ["a"], id="pg_dump"),
        pytest.param("a;\n  \\connect it's \nb;", [("\\connect it's", 2, 3)], ["a", "b"],
                     id="quotes-in-arguments"),
        pytest.param("a; \\gexec\nb", [("\\gexec", 1, 4)], ["a", "b"], id="after-a-statement"),
        pytest.param("a \\gexec\nb;c", [("\\gexec", 1, 3)], ["a \\gexec\nb", "c"],
                     id="within-a-statement"),
        pytest.param("a (b; \\g\n);c", [("\\g", 1, 7)], ["a (b; \\g\n)", "c"],
                     id="within-parentheses"),
        pytest.param("a \\g  ", [("\\g", 1, 3)], ["a \\g"], id="at-the-end"),
        pytest.param("a\\; b;c", [("\\;", 1, 2)], ["a\\; b", "c"], id="backslash-semicolon"),
        pytest.param("'\\a';\"\\b\";$$\\c$$ -- \\d\n/* \\e */", [],
                     ["'\\a'", '"\\b"', "$$\\c$$"], id="within-quotations"),
        pytest.param("\\.\na", [("\\.", 1, 1)], ["a"], id="end-of-no-rows"),
        pytest.param("\\copy t from stdin\n1\tit's\n\\.\na",
                     [("\\copy t from stdin", 1, 1)], ["a"], id="rows"),
    ],
)  # fmt: skip
def test_psql_commands(
    text: str, commands: list[tuple[str, int, int]], statements: list[str]
) -> None:
    pieces = split(text, "postgres")
    assert sorted(texts(text, "postgres")) == sorted([c[0] for c in commands] + statements)
    found = [piece for piece in pieces if isinstance(piece, MetaCommand)]
    assert [(piece.text, piece.line, piece.column) for piece in found] == commands
    assert [piece.text for piece in pieces if isinstance(piece, Statement)] == statements


@pytest.mark.parametrize(
    ("dialect", "text", "what", "line", "column"),
    [
        pytest.param("postgres", "a;\n 'b''c;", "string literal", 2, 2, id="string"),
        pytest.param("postgres", "a;\n E'b\\';", "string literal", 2, 3, id="escape-string"),
        pytest.param("postgres", "E'a'\n'b\\';", "string literal", 1, 2, id="string-goes-on"),
        pytest.param("postgres", 'a;\n "b""c;', "quoted identifier", 2, 2, id="identifier"),
        pytest.param("postgres", "$x$;$X$;$$", "dollar-quoted string", 1, 1, id="dollar"),
        pytest.param("postgres", "a\n/* /* */", "comment", 2, 1, id="comment"),
        pytest.param("postgres", "a (b) (\n(c;d;", "parenthesis", 1, 7, id="parenthesis"),
        pytest.param("postgres", "a;create function f() begin atomic b;\nselect case when c end;",
                     "BEGIN ATOMIC body", 1, 3, id="routine"),
        pytest.param("postgres", "create function f() begin atomic b", "BEGIN ATOMIC body", 1, 1,
                     id="routine-without-semicolon"),
        pytest.param("postgres", "\ncopy t from stdin;\n1\n \\.\n\\.x\n", "COPY data", 2, 1,
                     id="copy"),
        pytest.param("postgres", "copy t from stdin", "COPY data", 1, 1, id="copy-at-end"),
        pytest.param("sqlite", "a;'b", "string literal", 1, 3, id="sqlite-string"),
        pytest.param("sqlite", "a;`b``", "quoted identifier", 1, 3, id="sqlite-backquote"),
        pytest.param("sqlite", "a;[b", "quoted identifier", 1, 3, id="sqlite-bracket"),
        pytest.param("sqlite", "a;create trigger t begin b;\nselect case when c end;end d;",
                     "trigger body", 1, 3, id="sqlite-trigger"),
        pytest.param("sqlite", "create trigger t", "trigger body", 1, 1, id="sqlite-no-body"),
        pytest.param("generic", "a;'b", "string literal", 1, 3, id="generic-string"),
        pytest.param("generic", "a;/* b", "comment", 1, 3, id="generic-comment"),
    ],
)  # fmt: skip
def test_what_is_never_closed(
    dialect: Dialect, text: str, what: str, line: int, column: int
) -> None:
    with pytest.raises(UnterminatedError) as caught:
        split(text, dialect)
    error = caught.value
    assert str(error) == f"unterminated {what} (line {line}, column {column})"
    assert (error.what, error.problem) == (what, f"unterminated {what}")
    assert (error.line, error.column) == (line, column)
    before = text[: error.offset].split("\n")
    assert (len(before), len(before[-1]) + 1) == (line, column)


def test_a_statement_on_the_line_of_a_copy() -> None:
    """psql runs it after the rows that stand below it, and so in another order than is written."""
    with pytest.raises(SplitError) as caught:
        split("a;\ncopy t from stdin; b;\n1\n\\.\n", "postgres")
    assert str(caught.value) == (
        "a statement follows COPY … FROM stdin; on its line (line 2, column 19)"
    )


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        pytest.param("postgres", "create Unique index/* x */concurrently if not exists i on t(a);",
                     "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS I ON T A", id="index"),
        pytest.param("postgres", "REINDEX (VERBOSE) TABLE CONCURRENTLY x",
                     "REINDEX VERBOSE TABLE CONCURRENTLY X", id="parentheses"),
        pytest.param("postgres", 'a "b" \'c\' E\'d\' U&"e" u&\'f\' N\'g\' $$h$$ $i$j$i$ -- k\nl',
                     "A L", id="postgres-quotations"),
        pytest.param("postgres", "a$1$ 1e5 $1 0x1F é_1.b::c", "A$1$ É_1 B C", id="no-numbers"),
        pytest.param("sqlite", "a `b` [c] \"d\" x'00' /* e */ f$g /* h", "A F$G", id="sqlite"),
        pytest.param("generic", "a [b] `c` $$d$$", "A B C", id="generic"),
        pytest.param("generic", "", "", id="none"),
    ],
)  # fmt: skip
def test_words(dialect: Dialect, text: str, expected: str) -> None:
    assert " ".join(words(text, dialect)) == expected


@pytest.mark.parametrize("dialect", ALL)
def test_what_is_read_fast_is_read_the_same(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain statements, and the first words of any, have a short way; it leads to the same."""
    chance = random.Random(15)  # noqa: S311 - the same texts each time
    text = (
        "a E x' ' '' \" $ $$ $b$ 1 1c é - -- -- /* */ / ( ) ( ) (d) 'e' ; ; ; , [ ] ` \\ = "
        "CREATE TABLE BEGIN ATOMIC END TRIGGER FUNCTION COPY FROM STDIN EXPLAIN select"
    )
    pieces = text.split(" ")
    for _ in range(3000):
        text = "".join(
            chance.choice(pieces) + chance.choice(["", " ", " ", "\n"])
            for _ in range(chance.randrange(40))
        )
        short = _outcome(partial(split, text, dialect))
        first_words = partial(tuple[str, ...], islice(words(text, dialect), 12))
        assert _outcome(partial(leading_words, text, dialect)) == _outcome(first_words)
        with monkeypatch.context() as patched:
            patched.setattr(statements, "_SHORT", 0)
            assert short == _outcome(partial(split, text, dialect))


def _outcome(act: Callable[[], object]) -> object:
    """What a call gives, or what it says of a text that cannot be taken apart."""
    try:
        return act()
    except SplitError as error:
        return str(error)


def test_words_are_read_lazily() -> None:
    found = words("vacuum 'never closed", "postgres")
    assert next(found) == "VACUUM"
    with pytest.raises(UnterminatedError):
        next(found)


NASTY: dict[Dialect, list[str]] = {
    "postgres": [
        ROUTINE,
        "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; SELECT ';)')",
        "DO $body$ BEGIN PERFORM $$;$$; /* ' */ END $body$",
        "SELECT E'it\\'s;\\\\', 'C:\\', e'\\';'",
        "SELECT a$b, $1, b$$ FROM é$é",
        "SELECT 1 /* /* ; */ ' */ + 2 -- ;'\n - 3",
        "SELECT U&'\\0061', U&\"\\0061\", X'1f', B'01', N';'",
        "SELECT E'a'\n  'b\\';'",
        "COPY (SELECT ';') TO STDOUT",
        "COMMIT",
    ],
    "sqlite": [
        TRIGGER,
        "EXPLAIN CREATE TEMPORARY TRIGGER x BEGIN SELECT 1; END",
        "CREATE TABLE `;` ([;'] text, \"\"\";\" text DEFAULT 'it''s;')",
        "SELECT x'3b', '\\', (1 -- ;'\n)",
        "SELECT CASE WHEN 1 THEN 2 /* /* ; */ END",
        "END",
        "CREATE TEMP TABLE trigger_ (a)",
    ],
    "generic": [
        "INSERT INTO t VALUES ('it''s;', \"\"\";\", '\\')",
        "SELECT 1 /* ' /* ; */ - 2 -- ;'\n - 3",
        "SELECT {\"a\": ':b%s'}",
        "BEGIN",
    ],
}  # fmt: skip
BETWEEN = [" ", "\n", "\t", "\n\n", '-- it\'s; "no" $$ statement\n', "/* nor ' this; */", "\f\r\n"]


@pytest.mark.parametrize("dialect", ALL)
def test_joined_statements_are_found_again(dialect: Dialect) -> None:
    """Whatever blanks, comments and semicolons are put between statements, they come back."""
    chance = random.Random(14)  # noqa: S311
    for _ in range(300):
        chosen = chance.choices(NASTY[dialect], k=chance.randrange(8))
        text, offsets = "", []

        def between() -> str:
            return "".join(chance.choices(BETWEEN, k=chance.randrange(4)))

        for statement in chosen:
            text += between()
            offsets.append(len(text))
            text += statement + between() + ";" + between() + chance.choice(["", "", ";"])
        text += between()
        if chance.random() < 0.5:
            text = text.rstrip("; \t\r\n\f")
        pieces = split(text, dialect)
        assert texts(text, dialect) == chosen, text
        assert [piece.start for piece in pieces] == offsets


TOKENS = [
    "create", "CREATE ", "temp", "temporary ", "trigger", "Trigger ", "end", "END;", "explain ",
    "explain", ";", "; ", ";;", " ", "\n", "x", "trigger1", "$", "é", "1", ".", "(", ")", "-", "/",
    "'a;'", "'it''s'", "'", '"b;"', '"', "`c;`", "`", "[d;]", "[", "]", "-- e;\n", "/* f; */", "/*",
    "*/", "create trigger ", "begin ", ";end;", "; END ;", "explain query plan ",
]  # fmt: skip


def test_sqlite_ends_statements_where_sqlite_does() -> None:
    """A text is complete for SQLite iff a word put behind it is a statement of its own.

    The `;` in front is there because SQLite does not call a text of blanks complete, the newline
    because its versions differ over a `--` comment at the end.
    """
    chance = random.Random(1729)  # noqa: S311
    outcomes = {True: 0, False: 0}
    for _ in range(20_000):
        text = ";" + "".join(chance.choices(TOKENS, k=chance.randrange(12))) + "\n"
        try:
            complete = texts(text + "last", "sqlite")[-1:] == ["last"]
        except UnterminatedError:
            complete = False
        assert complete == sqlite3.complete_statement(text), text
        outcomes[complete] += 1
    assert min(outcomes.values()) > 2_000
