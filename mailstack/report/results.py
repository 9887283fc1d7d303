"""Results of checks for programs: JSON and JUnit's XML. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from mailstack.model import CheckResult, Json, Verdict


def count(results: Sequence[CheckResult], verdict: Verdict) -> int:
    """Count the results with a verdict."""
    return sum(result.verdict is verdict for result in results)


def as_json(lab: str, results: Sequence[CheckResult]) -> Json:
    """Return the document of `mailstack check --json`, described in docs/json.md."""
    return {
        "lab": lab,
        "checks": [
            {
                "id": result.id,
                "title": result.title,
                "source": result.source,
                "verdict": str(result.verdict),
                "evidence": result.evidence,
                "milliseconds": result.milliseconds,
            }
            for result in results
        ],
        "passed": count(results, Verdict.PASS),
        "failed": count(results, Verdict.FAIL),
        "skipped": count(results, Verdict.SKIP),
    }


def as_junit(lab: str, results: Sequence[CheckResult], seconds: float) -> str:
    """Return JUnit's XML for CI systems: one test suite, one test case per check."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"mailstack check {lab}",
        tests=str(len(results)),
        failures=str(count(results, Verdict.FAIL)),
        errors="0",
        skipped=str(count(results, Verdict.SKIP)),
        time=f"{seconds:.3f}",
    )
    for result in results:
        family, _, name = result.id.partition(".")
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"mailstack.{family}", name=name, time=f"{result.milliseconds / 1000:.3f}"
        )
        if result.verdict is Verdict.FAIL:
            failure = ElementTree.SubElement(case, "failure", message=_xml(result.title))
            failure.text = _xml(f"{result.evidence}\n{result.source}")
        elif result.verdict is Verdict.SKIP:
            ElementTree.SubElement(case, "skipped", message=_xml(result.evidence))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(f"{result.title}: {result.evidence}")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Return `text` without the characters that XML 1.0 forbids (section 2.2)."""
    return "".join(
        c if c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" else "?"
        for c in text
    )
