"""What a run gives: JSON, text for a terminal, and a table in docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.environments import ROOT
from benchmark.rows import FLUX, Row, Unit

PAGE = ROOT / "docs" / "benchmarks.md"

_BEGIN = "<!-- what was measured: scripts/bench writes it -->\n"
_END = "<!-- end of what was measured -->\n"
_HEAD = ("work", "flux", "beside it", "ratio", "limit", "others")

_Data = dict[str, Any]


def as_data(rows: Sequence[Row], machine: Mapping[str, str], run: Mapping[str, Any]) -> _Data:
    """A run as JSON has it; `run` is noted with each row."""
    measured = [{**row.as_data(), **run} for row in rows]
    return {"machine": dict(machine), "rows": measured}


def publish(data: _Data, page: Path) -> None:
    """Write the rows into a page, in place of earlier ones of the same works. Writes two files.

    The other one is the JSON beside it. Rows of other works stay there if they were measured on the
    same machine with the same versions.
    """
    rows, path = data["rows"], page.with_suffix(".json")
    if path.exists():
        earlier = json.loads(path.read_text("utf-8"))
        if earlier["machine"] == data["machine"]:
            works = {row["work"] for row in rows}
            rows = [row for row in earlier["rows"] if row["work"] not in works] + rows
    before, found, rest = page.read_text("utf-8").partition(_BEGIN)
    _, found_too, after = rest.partition(_END)
    if not (found and found_too):
        raise ValueError(f"{page} has no place for the table")
    write({**data, "rows": rows}, path)
    text = "\n".join([*_markdown(rows), "", *_conditions(data["machine"], rows)])
    page.write_text(f"{before}{_BEGIN}\n{text}\n\n{_END}{after}", "utf-8")


def write(data: _Data, path: Path) -> None:
    """Write a run as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")


def as_text(rows: Sequence[Row]) -> str:
    """The rows as aligned lines."""
    cells = [_HEAD, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _markdown(rows: Sequence[_Data]) -> list[str]:
    cells = [_HEAD, ("---",) * len(_HEAD), *(_cells(Row.from_data(data)) for data in rows)]
    return [f"| {' | '.join(line)} |" for line in cells]


def _conditions(machine: Mapping[str, str], rows: Sequence[_Data]) -> list[str]:
    """Where and when it was measured, as a list."""
    days = sorted({row["date"] for row in rows})
    between = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    commits = ", ".join(f"`{commit}`" for commit in sorted({row["commit"] for row in rows}))
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    return [f"Measured {between}, at the commit {commits}:", "", *lines]


def _cells(row: Row) -> tuple[str, ...]:
    others = {name: value for name, value in row.values.items() if name not in (FLUX, row.base)}
    told = [
        f"{name} {_shown(value, row.unit)}"
        for name, value in sorted(others.items(), key=lambda item: item[1])
    ]
    if row.series is not None:
        told.append(
            "flux: " + " → ".join(_shown(one, row.series.unit) for one in row.series.amounts)
        )
    beside = f"{row.base} {_shown(row.values[row.base], row.unit)}" if row.base else ""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}{_mark(row)}"
    limit = ""
    if row.limit is not None:
        limit = f"≤ {_shown(row.limit, row.unit)}{_mark(row)}"
        if row.ratio is not None:
            limit = f"≤ {row.limit:.2f}"
    return row.title, _shown(row.values[FLUX], row.unit), beside, ratio, limit, "; ".join(told)


def _mark(row: Row) -> str:
    """A mark beside a number that is over its limit."""
    return " (over)" if row.is_over else ""


def _shown(value: float, unit: Unit) -> str:
    """An amount with three digits."""
    if unit in ("exponent", "times"):
        return f"{value:.2f}"
    if unit == "bytes":
        return f"{value / 2**20:.3g} MiB"
    if unit == "seconds":
        return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.3g} s"
    return f"{value:.3g}"
