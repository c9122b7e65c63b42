"""The report of a smoke run: a table for people, JSON for scripts, JUnit XML for a CI. Pure: results in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from appliance.smoke.runner import SmokeResult

SCHEMA_VERSION: Final = 1
_STYLE: Final = {"passed": "[green]passed", "failed": "[red]FAILED", "skipped": "[yellow]skipped"}


def totals(results: Sequence[SmokeResult]) -> dict[str, int]:
    """How many of each verdict."""
    return {verdict: sum(result.verdict == verdict for result in results) for verdict in ("passed", "failed", "skipped")}


def as_document(results: Sequence[SmokeResult], *, url: str, request_id: str, started_at: str) -> dict[str, Any]:
    """For scripts; ``request_id`` finds the run in the log and the audit log."""
    return {
        "schema_version": SCHEMA_VERSION,
        "url": url,
        "request_id": request_id,
        "started_at": started_at,
        "seconds": round(sum(result.seconds for result in results), 3),
        **totals(results),
        "tests": [{**asdict(result), "seconds": round(result.seconds, 3)} for result in results],
    }


def print_table(results: Sequence[SmokeResult], console: Console) -> None:
    """Test, verdict, seconds, what was found; the hint of a failure below."""
    table = Table("", "test", "verdict", "seconds", "what was found")
    for result in results:
        detail = escape(result.detail) + (f"\n[dim]hint: {escape(result.hint)}[/dim]" if result.hint else "")
        table.add_row(result.name[:2], escape(result.title), _STYLE[result.verdict], f"{result.seconds:.2f}", detail)
    console.print(table)
    counted = totals(results)
    seconds = sum(result.seconds for result in results)
    console.print(f"{counted['passed']} passed, {counted['failed']} failed, {counted['skipped']} skipped in {seconds:.1f} s")


def as_junit(results: Sequence[SmokeResult], *, url: str, started_at: str) -> bytes:
    """JUnit XML, one suite."""
    counted = totals(results)
    suite = ET.Element(
        "testsuite", name="appliance smoke", hostname=_printable(url), timestamp=started_at, tests=str(len(results)), failures=str(counted["failed"]),
        errors="0", skipped=str(counted["skipped"]), time=f"{sum(result.seconds for result in results):.3f}",
    )  # fmt: skip
    for result in results:
        case = ET.SubElement(suite, "testcase", classname="smoke-tests", name=result.name, time=f"{result.seconds:.3f}")
        if result.verdict == "failed":
            ET.SubElement(case, "failure", message=_printable(result.detail)).text = _printable(result.hint)
        elif result.verdict == "skipped":
            ET.SubElement(case, "skipped", message=_printable(result.detail))
        ET.SubElement(case, "system-out").text = _printable(f"{result.title}: {result.detail}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ET.tostring(root, encoding='unicode')}\n".encode()


def _printable(text: str) -> str:
    """XML 1.0 has no place for control characters and lone surrogates."""
    return "".join(char if char in "\n\t" or (char.isprintable() and not "\ud800" <= char <= "\udfff") else "�" for char in text)
