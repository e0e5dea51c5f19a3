"""A result of `hwprune bench` as Markdown for a job summary and as JUnit XML."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from hwprune.gate.verdict import Verdict
from hwprune.gate.words import (
    CHECKS_HEAD,
    at_bound,
    check_row,
    check_rows,
    footnote,
    headline,
    name,
    networks,
    title,
)
from hwprune.plain import markdown_text, xml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hwprune.gate.result import BenchResult
    from hwprune.gate.verdict import Check

_MARKS = {Verdict.PASS: "✅", Verdict.MEASURED: "📏", Verdict.TOO_NOISY: "⚠️"}


def markdown(result: BenchResult) -> str:
    """One section of Markdown; several of them make one summary."""
    lines = [f"## {_MARKS.get(result.verdict, '❌')} hwprune bench: {markdown_text(title(result))}", ""]
    lines += [f"**{markdown_text(headline(result))}**", "", *_table(*networks(result))]
    if result.checks:
        lines += ["", *_table(CHECKS_HEAD, check_rows(result))]
    lines += ["", *(f"- {markdown_text(text)}" for text in result.slow)] if result.slow else []
    return "\n".join([*lines, "", markdown_text(footnote(result)), ""]) + "\n"


def junit(result: BenchResult) -> str:
    """One test suite with a test case for each limit; too noisy to tell is an error, a breach a failure."""
    failures = sum(check.verdict == check.limit.breach for check in result.checks)
    errors = sum(check.verdict == Verdict.TOO_NOISY for check in result.checks)
    counts = {"tests": max(len(result.checks), 1), "failures": failures, "errors": errors, "skipped": 0}
    attributes = {"name": f"hwprune bench: {title(result)}", **counts, "timestamp": result.date}
    suite = ElementTree.Element("testsuite", _texts(attributes))
    for check in result.checks:
        _case(suite, check, result.model.ms)
    if not result.checks:
        _case(suite, None, result.model.ms)
    notes = [*(": ".join(row) for row in networks(result)[1]), footnote(result)]
    ElementTree.SubElement(suite, "system-out").text = xml_text("\n".join(notes))
    suites = ElementTree.Element("testsuites", _texts(counts))
    suites.append(suite)
    ElementTree.indent(suites)
    text: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _case(suite: ElementTree.Element, check: Check | None, ms: float) -> None:
    """A test case; its time is that of one run of the network."""
    case_name = f"{name(check)}, {at_bound(check)}" if check else "latency"
    attributes = {"classname": "hwprune.bench", "name": case_name, "time": f"{ms / 1e3:.9f}"}
    case = ElementTree.SubElement(suite, "testcase", _texts(attributes))
    if check is None or check.verdict == Verdict.PASS:
        return
    kind = "error" if check.verdict == Verdict.TOO_NOISY else "failure"
    _, value, interval, allowed, verdict = check_row(check)
    message = f"{verdict}: {value} ({interval}), allowed {allowed}"
    ElementTree.SubElement(case, kind, _texts({"type": verdict, "message": message}))


def _texts(attributes: Mapping[str, object]) -> dict[str, str]:
    return {key: xml_text(str(value)) for key, value in attributes.items()}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(markdown_text(cell) for cell in row)} |" for row in rows]
