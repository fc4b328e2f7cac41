"""Proofs as a JUnit report, the XML that CI systems show. Pure.

Its form is that of the schema which Jenkins publishes (`testsuite`, `testcase`, `failure`,
`skipped`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from flux.proof import Proof

#: What XML 1.0 cannot hold.
_NO_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def report(proofs: Sequence[Proof], failures: Sequence[str]) -> str:
    """The report; `failures` has for each proof what is wrong with it, or an empty text."""
    cases = [pair for pair in zip(proofs, failures, strict=True) if pair[0].verdict != "applied"]
    skipped = sum(proof.verdict == "not reached" for proof, _ in cases)
    suite = ElementTree.Element(
        "testsuite",
        name="flux test",
        tests=str(len(cases)),
        failures=str(sum(bool(failure) for _, failure in cases) - skipped),
        errors="0",
        skipped=str(skipped),
        time=f"{sum(proof.seconds for proof, _ in cases):.6f}",
    )
    for proof, failure in cases:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="flux",
            name=_clean(proof.name),
            file=_clean(proof.path),
            time=f"{proof.seconds:.6f}",
        )
        if proof.verdict == "not reached":
            ElementTree.SubElement(case, "skipped", message="one before it cannot be applied")
        elif failure:
            message = _clean(failure.partition("\n")[0])
            ElementTree.SubElement(case, "failure", message=message).text = _clean(failure)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        + ElementTree.tostring(suites, encoding="unicode")
        + "\n"
    )


def _clean(text: str) -> str:
    return _NO_CHARACTER.sub("\ufffd", text)
