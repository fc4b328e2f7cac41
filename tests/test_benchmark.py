"""The benchmark works. What it measures is no matter of tests, which never look at a time."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmark import report
from benchmark.__main__ import WORKS
from benchmark.measure import Contender, exponent, in_turn, ratio
from benchmark.processes import Sample
from benchmark.rows import Row, Series
from tests.conftest import unavailable
from tests.documents import ROOT
from tests.flux_process import flux_environment, run_to_end
from tests.postgres_server import PG_CTL_VARIABLE, ServerUnavailableError, find_pg_ctl

MACHINE = {"machine": "a small one", "Python": "3.13.0"}
RUN = {"date": "2024-04-22", "commit": "0123456789", "command": "scripts/bench"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows starts processes in another way")
def test_a_run(tmp_path: Path) -> None:
    """Every work gives rows, with flux in each; nothing is written but what was asked for."""
    pg_ctl = os.environ.get(PG_CTL_VARIABLE)
    try:
        find_pg_ctl(pg_ctl)
    except ServerUnavailableError as error:
        unavailable(str(error))
    path = tmp_path / "run.json"
    done = run_to_end(
        [sys.executable, "-m", "benchmark", "--in-place", *_SMALL, "--json", path],
        cwd=tmp_path,
        env=flux_environment({"PYTHONPATH": _PATH, PG_CTL_VARIABLE: pg_ctl}),
        timeout=600,
    )
    assert done.code == 0, done
    assert list(tmp_path.iterdir()) == [path]
    rows = json.loads(path.read_text("utf-8"))["rows"]
    assert {row["work"] for row in rows} == set(WORKS)
    for row in rows:
        assert "flux" in row["values"]
        assert row["title"] in done.out


_PATH = os.pathsep.join(str(path) for path in (ROOT, ROOT / "scripts"))
_SMALL = ("--smaller", "500", "--rounds", "1")

# Comparing ----------------------------------------------------------------------------------


def test_in_turn() -> None:
    """Another one begins each round; what is prepared comes before; some run in fewer rounds."""
    heard = []

    def contender(name: str, rounds: int) -> Contender:
        def run() -> Sample:
            heard.append(name)
            return Sample(float(len(heard)))

        return Contender(run, rounds, lambda: heard.append("-"))

    samples = in_turn({name: contender(name, n) for name, n in (("a", 3), ("b", 1), ("c", 2))})
    assert "".join(heard) == "-a-b-c-c-a-a"
    assert samples["a"] == [Sample(2.0), Sample(10.0), Sample(12.0)]
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 3, "b": 1, "c": 2}


def test_a_ratio_is_that_of_the_rounds() -> None:
    """A round in which the machine was slow for both changes nothing."""
    assert ratio([2, 40, 3], [1, 20, 1]) == 2


@pytest.mark.parametrize(
    ("amounts", "grows"),
    [([7, 1, 10], 1), ([7, 1, 100], 2), ([7, 3, 3], 0)],
    ids=["linearly", "quadratically", "not at all"],
)
def test_an_exponent(amounts: list[float], grows: float) -> None:
    """From the last size but one to the last: what comes in once hides least there."""
    assert exponent([10, 100, 1000], amounts) == pytest.approx(grows)


# Reporting ----------------------------------------------------------------------------------

_ROWS = [
    Row("a", "times", "seconds", {"flux": 0.0123, "floor": 0.01, "x": 2.5}, "floor", 1.23, 1.5),
    Row("a", "over", "seconds", {"flux": 3.0, "floor": 1.0}, "floor", 3.0, 1.5),
    Row("b", "memory", "bytes", {"flux": 40 * 2**20, "z": 2**20}, limit=36 * 2**20),
    Row("b", "counts", "round trips", {"flux": 0.02}, limit=0.1),
    Row("b", "grows", "exponent", {"flux": 1.0}, limit=1.05, series=Series("seconds", [0.5, 5])),
]
_PAGE = """\
# Page

<!-- what was measured: scripts/bench writes it -->
{}<!-- end of what was measured -->
"""
_TABLE = """
| work | flux | beside it | ratio | limit | others |
| --- | --- | --- | --- | --- | --- |
| times | 12.3 ms | floor 10 ms | 1.23 | ≤ 1.50 | x 2.5 s |
| over | 3 s | floor 1 s | 3.00 (over) | ≤ 1.50 |  |
| memory | 40 MiB |  |  | ≤ 36 MiB (over) | z 1 MiB |
| counts | 0.02 |  |  | ≤ 0.1 |  |
| grows | 1.00 |  |  | ≤ 1.05 | flux: 500 ms → 5 s |

Measured on 2024-04-22, at the commit `0123456789`:

- machine: a small one
- Python: 3.13.0

"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with a place for the table."""
    path = tmp_path / "page.md"
    path.write_text(_PAGE.format(""), "utf-8")
    return path


def test_what_is_published(page: Path) -> None:
    report.publish(report.as_data(_ROWS, MACHINE, RUN), page)
    assert page.read_text("utf-8") == _PAGE.format(_TABLE)


def test_publishing_again(page: Path) -> None:
    """Rows of the same work are replaced; those of others stay, unless the machine is another."""
    report.publish(report.as_data(_ROWS, MACHINE, RUN), page)
    new = [Row("b", "new", "times", {"flux": 2.0})]
    report.publish(report.as_data(new, MACHINE, {**RUN, "date": "2024-04-23"}), page)
    text = page.read_text("utf-8")
    assert "| times |" in text
    assert "| memory |" not in text
    assert "| new | 2.00 |" in text
    assert "Measured from 2024-04-22 to 2024-04-23" in text
    report.publish(report.as_data(new, {**MACHINE, "Python": "3.14"}, RUN), page)
    assert "| times |" not in page.read_text("utf-8")


def test_a_page_without_a_place(page: Path) -> None:
    page.write_text("# Page\n", "utf-8")
    with pytest.raises(ValueError, match="no place for the table"):
        report.publish(report.as_data(_ROWS, MACHINE, RUN), page)
    assert [path.name for path in page.parent.iterdir()] == ["page.md"]
