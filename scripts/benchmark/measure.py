"""Comparing: what is run in turn, and what comes of it. Nothing here knows what is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import log
from statistics import median
from typing import NamedTuple, TypeVar

from benchmark.processes import Sample

_Key = TypeVar("_Key")


class Contender(NamedTuple):
    """Something to run in turn with others: `prepare`, which is not measured, and then `run`.

    It is run in the first `rounds` rounds.
    """

    run: Callable[[], Sample]
    rounds: int
    prepare: Callable[[], object] = lambda: None


def in_turn(contenders: Mapping[_Key, Contender]) -> dict[_Key, list[Sample]]:
    """Run each once in each round, so that what else the machine does falls on all of them.

    Another one begins each round.
    """
    samples: dict[_Key, list[Sample]] = {key: [] for key in contenders}
    keys = list(contenders)
    for number in range(max(one.rounds for one in contenders.values())):
        start = number % len(keys)
        for key in keys[start:] + keys[:start]:
            contender = contenders[key]
            if number < contender.rounds:
                contender.prepare()
                samples[key].append(contender.run())
    return samples


def ratio(ours: Iterable[float], base: Iterable[float]) -> float:
    """The median, over all rounds, of one to the other of the same round."""
    return median(one / other for one, other in zip(ours, base, strict=False))


def exponent(sizes: Sequence[int], amounts: Sequence[float]) -> float:
    """How an amount grows with a size, from the last but one to the last: 1 is linearly."""
    (small, large), (little, much) = sizes[-2:], amounts[-2:]
    return log(much / little) / log(large / small)
