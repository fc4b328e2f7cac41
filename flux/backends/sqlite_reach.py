"""What in a script reaches beyond the database file that it runs in. Pure."""

from __future__ import annotations

from flux.exceptions import Problem
from flux.migration import Script
from flux.scratch import reaching
from flux.statements import tokens

HINT = (
    "where the other file does not matter, say so: --throw-away-server, or "
    "throw_away_server = true in the configuration"
)


def find_reaching(script: Script) -> list[Problem]:
    """A problem for each statement that opens or writes another file. Pure."""
    return reaching(script, "sqlite", reach_of, to="another file", hint=HINT)


def reach_of(sql: str) -> str | None:
    """What in a statement reaches beyond its file (`ATTACH`); None for nothing. Pure."""
    if sql[:6].upper() not in ("ATTACH", "VACUUM"):
        return None
    found = list(tokens(sql, "sqlite"))
    heads = [token.text.upper() for token in found]
    if heads[0] == "VACUUM":
        return "VACUUM INTO" if "INTO" in heads else None
    # ATTACH [DATABASE] file AS name
    file = found[2 if heads[1:2] == ["DATABASE"] else 1 :][:2]
    is_own = [token.text[1:-1] for token in file[:1]] in ([":memory:"], [""])
    return None if is_own and file[1].text.upper() == "AS" else "ATTACH"
