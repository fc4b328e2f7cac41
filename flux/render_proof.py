"""Proofs, schemas and differences as text for people, and as data for programs. Never prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from flux.fingerprint import described
from flux.render import PLAIN, Palette, counted, duration, error_data, printable

if TYPE_CHECKING:
    from flux.fingerprint import Difference, Fingerprint, Item
    from flux.proof import Fault, Proof

#: Lines around a change that are shown of a long definition.
_CONTEXT = 2
#: The verdicts in the order in which they are counted, in the words of a sentence.
_COUNTED = {
    "proven": "proven",
    "applied": "applied",
    "no undo": "without an undo",
    "failed": "failed",
    "not reached": "not reached",
}


# Text ---------------------------------------------------------------------------------------


def proof_text(proof: Proof, palette: Palette = PLAIN) -> str:
    """A line for what was proven, and below it what is wrong."""
    colours = {
        "proven": palette.good,
        "applied": palette.faint,
        "no undo": palette.attention,
        "failed": palette.bad,
        "not reached": palette.attention,
    }
    verdict = palette.paint(colours[proof.verdict], f"{proof.verdict:<11}")
    took = "" if proof.verdict == "not reached" else duration(proof.seconds)
    line = f"{verdict}  {palette.paint(palette.faint, f'{took:>8}')}  {proof.name}"
    if proof.fault is None:
        return line
    return "\n".join([line, *(f"    {row}".rstrip() for row in fault_lines(proof.fault, palette))])


def fault_lines(fault: Fault, palette: Palette = PLAIN) -> Iterator[str]:
    """What is wrong, in which file, and what differs."""
    if fault.error is not None:
        yield f"{fault.message}:"
        yield from map(printable, str(fault.error).split("\n"))
    else:
        yield f"{fault.path}: {fault.message}"
    if fault.differences:
        yield f"(- {fault.before}, + {fault.now})"
        yield from difference_lines(fault.differences, palette)


def fault_summary(fault: Fault) -> str:
    """What is wrong, in one line."""
    if fault.error is not None:
        return f"{fault.message}: {fault.error.message}".replace("\n", " ")
    return f"{fault.path}: {fault.message}"


def proof_summary(proofs: Sequence[Proof]) -> str:
    """A line that counts the verdicts."""
    verdicts = [proof.verdict for proof in proofs]
    parts = [
        f"{verdicts.count(verdict)} {words}"
        for verdict, words in _COUNTED.items()
        if verdict in verdicts
    ]
    return ", ".join(parts) or "nothing to prove"


def drift_summary(differences: Sequence[Difference]) -> str:
    """A line that counts the objects that differ."""
    objects = {difference.item.object for difference in differences}
    return f"{counted(len(objects), 'object')} {'differ' if len(objects) > 1 else 'differs'}"


def difference_lines(differences: Sequence[Difference], palette: Palette = PLAIN) -> Iterator[str]:
    """What differs, each below its object: `-` is what the first side has, `+` the second."""
    for label, group in groupby(differences, lambda difference: difference.item.object):
        differing = list(group)
        if differing[0].item.of or differing[0].kind == "changed":
            yield f"  {printable(label)}"
        for difference in differing:
            for line in _changes(*(_lines(item, difference) for item in difference)):
                colour = {"-": palette.bad, "+": palette.good}.get(line[0], "")
                yield palette.paint(colour, line)


def _lines(item: Item | None, difference: Difference) -> list[str]:
    """What an item is, below the heading of its object; one that is alone has its own heading."""
    if item is None:
        return []
    lines = [f"    {printable(line)}" for line in described(item)]
    heads = not item.of and difference.kind != "changed"
    return [printable(item.label), *lines] if heads else lines


def _changes(before: list[str], after: list[str]) -> Iterator[str]:
    from difflib import unified_diff

    for line in list(unified_diff(before, after, n=_CONTEXT, lineterm=""))[2:]:
        if not line.startswith("@@"):
            yield f"{line[0]} {line[1:]}"


def text_changes(before: str, after: str, name: str, other: str) -> list[str]:
    """The lines of a diff of two texts, which are called so; empty where they are the same."""
    from difflib import unified_diff

    return list(unified_diff(before.splitlines(), after.splitlines(), name, other, lineterm=""))


# Data ---------------------------------------------------------------------------------------


def proofs_data(proofs: Sequence[Proof]) -> list[dict[str, Any]]:
    """The proofs of `test --json`."""
    return [
        {
            "name": proof.name,
            "path": proof.path,
            "verdict": proof.verdict,
            "seconds": round(proof.seconds, 6),
            "fault": _fault_data(proof.fault) if proof.fault else None,
        }
        for proof in proofs
    ]


def _fault_data(fault: Fault) -> dict[str, Any]:
    return {
        "moment": fault.moment,
        "path": fault.path,
        "message": fault.message,
        "error": error_data(fault.error) if fault.error else None,
        "differences": differences_data(fault.differences),
    }


def differences_data(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Differences as they stand in every format."""
    return [
        {
            "kind": difference.kind,
            "object": difference.item.object,
            "item": difference.item.label,
            "before": difference.before.definition if difference.before else None,
            "after": difference.after.definition if difference.after else None,
        }
        for difference in differences
    ]


def schema_data(fingerprint: Fingerprint) -> list[dict[str, Any]]:
    """The items of `schema --json`."""
    return [item._asdict() for item in fingerprint.items]
