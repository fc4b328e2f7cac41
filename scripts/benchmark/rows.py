"""What a work comes to: rows of a table, each with flux, a base, others and perhaps a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Literal, NamedTuple

from benchmark.measure import ratio
from benchmark.processes import Sample

Unit = Literal["seconds", "bytes", "round trips", "exponent", "times"]

FLUX = "flux"


class Series(NamedTuple):
    """Amounts for growing sizes."""

    unit: Unit
    amounts: Sequence[float]


class Row(NamedTuple):
    """One line: `values` by the tool's name, of which `base` is what flux is compared with.

    `limit` is for `ratio`, that of flux to the base; where there is no ratio, for flux's value.
    `series` are flux's amounts that an exponent comes from.
    """

    work: str
    title: str
    unit: Unit
    values: Mapping[str, float]
    base: str | None = None
    ratio: float | None = None
    limit: float | None = None
    series: Series | None = None

    @property
    def judged(self) -> float:
        """What the limit is for."""
        return self.values[FLUX] if self.ratio is None else self.ratio

    @property
    def is_over(self) -> bool:
        """Whether it is over its limit."""
        return self.limit is not None and self.judged > self.limit

    def as_data(self) -> dict[str, Any]:
        """The row as JSON has it, with four digits of each number."""
        values = {name: float(f"{value:.4g}") for name, value in self.values.items()}
        return {
            **self._asdict(),
            "values": values,
            "ratio": self.ratio and round(self.ratio, 3),
            "series": self.series and self.series._asdict(),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Row:
        """A row that JSON had, where it may have more beside it."""
        row = cls(**{name: data[name] for name in cls._fields})
        return row._replace(series=row.series and Series(**data["series"]))


def compared(
    work: str,
    title: str,
    samples: Mapping[str, Sequence[Sample]],
    base: str,
    limit: float | None = None,
    *,
    unit: Unit = "seconds",
    of: Callable[[Sample], float] = lambda sample: sample.seconds,
) -> Row:
    """A row of medians, and of the ratio of flux to its base, by samples taken in turn."""
    amounts = {name: list(map(of, taken)) for name, taken in samples.items()}
    values = {name: median(taken) for name, taken in amounts.items()}
    return Row(work, title, unit, values, base, ratio(amounts[FLUX], amounts[base]), limit)
