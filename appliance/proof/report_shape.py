"""The exact shape of a report: every key, its type and its bounds. Pure; what a verifier checks before it works with a value."""

from __future__ import annotations

import re
from typing import Any, Final

from appliance.kit.errors import ApplianceError
from appliance.proof.attempts import MAX_DISTINCT
from appliance.proof.closed_networks import MODES
from appliance.proof.report import KIND, SCHEMA_VERSION, VERDICTS

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAX_TEXT: Final = 4000
_MAX_LIST: Final = 64
_COUNTERS: Final = {"leaving_packets": int, "outer_packets": int, "kernel_icmpv6_packets": int, "unroutable": int}
_BUNDLE: Final = {"name": str, "version": str, "sequence": int, "manifest_sha256": str}
_PHASE: Final = {"name": str, "started_micros": int, "milliseconds": int, "ok": bool, "detail": str}
_ATTEMPT: Final = {
    "process": str, "pid": int, "call": str, "family": str, "protocol": str, "address": str, "port": int, "time_micros": int, "calls": int,
}  # fmt: skip
_CONTROL: Final = {
    "tried": list, "caught": list, "io_uring_denied": bool, "untraced_denied": bool, "counters": _COUNTERS, "holds": bool, "pids": list, "started_micros": int,
}  # fmt: skip
_MODE: Final = {
    "mode": str, "phases": list, "attempts": list, "counters": {"journey": _COUNTERS, "starts": _COUNTERS}, "control": _CONTROL,
    "starts_milliseconds": list, "trace": {"sha256": str, "size_bytes": int, "folder": str},
}  # fmt: skip
_REPORT: Final = {
    "schema_version": int, "kind": str, "made_at": str, "seconds": int, "tool": {"name": str, "version": str}, "bundles": {"install": _BUNDLE, "upgrade": _BUNDLE},
    "host": dict, "modes": list, "starts": {"median_milliseconds": dict, "percent_of_no_route": dict, "as_fast": bool}, "attempts": int, "verdict": str,
}  # fmt: skip


def check_shape(report: Any) -> None:
    """Raises ApplianceError ``proof_invalid`` naming the first place that is not as it should be."""
    try:
        _check(report, _REPORT, "report")
        if report["schema_version"] != SCHEMA_VERSION or report["kind"] != KIND or report["verdict"] not in VERDICTS:
            raise ValueError("report: unknown schema_version, kind or verdict")
        for bundle in report["bundles"].values():
            _digest(bundle["manifest_sha256"], "bundles")
        for entry in _list(report["modes"], len(MODES), "modes"):
            _mode(entry)
    except (ValueError, TypeError) as exc:
        raise ApplianceError("proof_invalid", str(exc), hint="it was written by another release, or by somebody else; run the proof again") from exc


def _mode(entry: Any) -> None:
    _check(entry, _MODE, "mode")
    if entry["mode"] not in MODES:
        raise ValueError(f"modes: unknown mode {entry['mode'][:40]!r}")
    _digest(entry["trace"]["sha256"], "trace")
    for phase in _list(entry["phases"], _MAX_LIST, "phases"):
        _check(phase, _PHASE, "phase")
    for attempt in _list(entry["attempts"], MAX_DISTINCT, "attempts"):
        _check(attempt, _ATTEMPT, "attempt")
    for name in ("tried", "caught"):
        for way in _list(entry["control"][name], MAX_DISTINCT, name):
            if not isinstance(way, list) or [type(part) for part in way] != [str, str, int]:
                raise ValueError(f"control: {name} has an entry that is no destination")
    for number in (*_list(entry["starts_milliseconds"], _MAX_LIST, "starts"), *_list(entry["control"]["pids"], _MAX_LIST, "pids")):
        _check(number, int, "number")


def _check(value: Any, shape: Any, what: str) -> None:
    if isinstance(shape, dict):
        if not isinstance(value, dict) or set(value) != set(shape):
            raise ValueError(f"{what}: expected exactly the keys {', '.join(sorted(shape))}")
        for name, inner in shape.items():
            _check(value[name], inner, f"{what}.{name}")
        return
    if type(value) is not shape:
        raise ValueError(f"{what}: expected {shape.__name__}")
    if (shape is int and value < 0) or (shape is str and len(value) > _MAX_TEXT):
        raise ValueError(f"{what}: out of bounds")


def _list(value: list[Any], most: int, what: str) -> list[Any]:
    if len(value) > most:
        raise ValueError(f"{what}: more than {most} entries")
    return value


def _digest(text: str, what: str) -> None:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{what}: not a sha256")
