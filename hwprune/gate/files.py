"""A result of `hwprune bench` as Markdown for a job summary and as JUnit XML."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from hwprune.gate.verdict import Verdict
from hwprune.gate.words import (
    CHECKS_HEAD,
    NETWORKS_HEAD,
    check_rows,
    footnote,
    headline,
    name,
    network_rows,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hwprune.gate.result import BenchResult
    from hwprune.gate.verdict import Check

_MARKS = {Verdict.PASS: "✅", Verdict.MEASURED: "📏", Verdict.TOO_NOISY: "⚠️"}
_MARKUP = re.compile(r"([\\`*_\[\]|~#])")
# What XML 1.0 cannot hold, escaped or not: names of files may be any bytes.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def markdown(result: BenchResult) -> str:
    """One section of Markdown; several of them make one summary."""
    lines = [f"## {_MARKS.get(result.verdict, '❌')} hwprune bench: {_plain(title(result))}", ""]
    lines += [f"**{_plain(headline(result))}**", "", *_table(NETWORKS_HEAD, network_rows(result))]
    if result.checks:
        lines += ["", *_table(CHECKS_HEAD, check_rows(result))]
    return "\n".join([*lines, "", _plain(footnote(result)), ""]) + "\n"


def junit(result: BenchResult) -> str:
    """One test suite with a test case for each limit; too noisy to tell is an error, a breach a failure."""
    failures = sum(check.verdict == check.limit.breach for check in result.checks)
    errors = sum(check.verdict == Verdict.TOO_NOISY for check in result.checks)
    counts = {"tests": max(len(result.checks), 1), "failures": failures, "errors": errors, "skipped": 0}
    attributes = {"name": f"hwprune bench: {title(result)}", **counts, "timestamp": result.date}
    suite = ElementTree.Element("testsuite", _texts(attributes))
    for check in result.checks:
        _case(suite, result, check)
    if not result.checks:
        _case(suite, result, None)
    notes = [*(": ".join(filter(None, row)) for row in network_rows(result)), footnote(result)]
    ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(notes))
    suites = ElementTree.Element("testsuites", _texts(counts))
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True).decode() + "\n"


def _case(suite: ElementTree.Element, result: BenchResult, check: Check | None) -> None:
    """A test case; its time is that of one run of the network."""
    case_name = f"{name(check)}, at most {check.limit.text}" if check else "latency"
    attributes = {"classname": "hwprune.bench", "name": case_name, "time": f"{result.model.ms / 1e3:.9f}"}
    case = ElementTree.SubElement(suite, "testcase", _texts(attributes))
    if check is None or check.verdict == Verdict.PASS:
        return
    kind = "error" if check.verdict == Verdict.TOO_NOISY else "failure"
    row = dict(zip(CHECKS_HEAD, check_rows(result)[result.checks.index(check)], strict=True))
    message = f"{check.verdict.value}: {row['measured']} ({row['interval']}), allowed {row['allowed']}"
    ElementTree.SubElement(case, kind, _texts({"type": check.verdict.value, "message": message}))


def _texts(attributes: Mapping[str, object]) -> dict[str, str]:
    return {key: _xml(str(value)) for key, value in attributes.items()}


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line: a file's name may hold anything."""
    one_line = " ".join(_xml(text).split())
    return _MARKUP.sub(r"\\\1", escape(one_line, quote=False))
