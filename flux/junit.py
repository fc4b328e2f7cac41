"""Proofs as a JUnit report, the XML that CI systems show. Pure.

Its form is that of the schema which Jenkins publishes (`testsuite`, `testcase`, `failure`,
`skipped`, `error`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from flux.render_proof import fault_lines, fault_summary

if TYPE_CHECKING:
    from flux.proof import Proof

#: What XML 1.0 cannot hold.
_NO_CHARACTER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
#: Why a migration was not proven that did not fail either.
_SKIPPED = {"no undo": "it has no undo", "not reached": "one before it cannot be applied"}


def report(proofs: Sequence[Proof], error: str = "") -> str:
    """The report on all that was to be proven; `error` is what ended it before its end."""
    suite = ElementTree.Element("testsuite", name="flux test")
    for proof in proofs:
        if proof.verdict != "applied":
            _add_case(suite, proof)
    if error:
        case = ElementTree.SubElement(suite, "testcase", classname="flux", name="flux test")
        _add_text(case, "error", error.partition("\n")[0], error)
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite)))
    suite.set("time", f"{sum(proof.seconds for proof in proofs):.6f}")
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _add_case(suite: ElementTree.Element, proof: Proof) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname="flux",
        name=_clean(proof.name),
        file=_clean(proof.path),
        time=f"{proof.seconds:.6f}",
    )
    if proof.fault is not None:
        lines = "\n".join(fault_lines(proof.fault))
        _add_text(case, "failure", fault_summary(proof.fault), lines)
    elif reason := _SKIPPED.get(proof.verdict):
        ElementTree.SubElement(case, "skipped", message=reason)


def _add_text(case: ElementTree.Element, tag: str, message: str, text: str) -> None:
    ElementTree.SubElement(case, tag, message=_clean(message)).text = _clean(text)


def _clean(text: str) -> str:
    return _NO_CHARACTER.sub("\ufffd", text)
