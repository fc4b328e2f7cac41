"""What was found of late migrations, as text for people and as data for programs. Never prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flux.render import PLAIN, Palette, error_data
from flux.render_proof import difference_lines, differences_data

if TYPE_CHECKING:
    from flux.late_proof import LateProof


def late_proof_text(proof: LateProof, palette: Palette = PLAIN) -> str:
    """Whether the order of late migrations matters, and below that what differs."""
    colour = palette.good if proof.is_proven else palette.bad
    verdict = palette.paint(colour, "proven     " if proof.is_proven else "not proven ")
    lines = [f"{verdict}  {', '.join(proof.late)}: {proof}"]
    if proof.error is not None:
        lines += [f"    {line}" for line in str(proof.error).split("\n")]
    if proof.differences:
        lines.append("    (- in the order of their ids, + in the order that it would be here)")
        lines += [f"    {line}" for line in difference_lines(proof.differences, palette)]
    return "\n".join(line.rstrip() for line in lines)


def late_proof_data(proof: LateProof) -> dict[str, Any]:
    """The proof of `test --late --json`."""
    return {
        "late": list(proof.late),
        "proven": proof.is_proven,
        "message": str(proof),
        "failed": proof.failed,
        "error": error_data(proof.error) if proof.error else None,
        "missing": list(proof.missing),
        "rows_at_stake": [one._asdict() for one in proof.at_stake],
        "differences": differences_data(proof.differences),
    }
