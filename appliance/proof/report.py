"""The report: what was recorded in each closed network, the control, the total; and how a reader works the verdict out again. Pure.

Rules of the verdict, the same when the report is made and when it is verified:

1. ``attempts`` is the sum of the distinct attempts of all modes; each is listed. The canary's are not among them, they are the control.
2. The control of a mode holds when the recorder caught exactly what the canary tried, no more and no less in the canary's time, ``io_uring`` and
   processes that the recorder does not follow were denied to it, and the counters saw it: packets that left, or, without a route, lookups that found none.
3. A mode is silent when it has no attempts and the counters stood still, during the journey and during the starts.
4. The report is complete when every kind of network is there once, in every one all phases went well, and the box was started often enough.
5. The box starts as fast with dropped packets as without a network: median ≤ 150 % or ≤ 500 ms more (a resolver's first timeout is 5 s).
6. ``verdict``: ``invalid`` when a control fails; else ``egress`` when a mode is not silent; else ``failed`` when it is not complete or not as fast;
   else ``sealed``. A report with less than all modes can only be ``partial`` where it would be ``sealed``.

No floats: milliseconds and microseconds are whole numbers.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, Final

from appliance.proof.attempts import Attempt
from appliance.proof.closed_networks import MODES
from appliance.proof.counters import Counters
from appliance.proof.journey import PHASES, STARTS

SCHEMA_VERSION: Final = 1
KIND: Final = "appliance-airgap-proof"
START_PERCENT: Final = 150
START_MARGIN_MILLISECONDS: Final = 500
MIN_CONTROL_WAYS: Final = 5
VERDICTS: Final = ("sealed", "partial", "egress", "failed", "invalid")


def mode_document(mode: str, result: Mapping[str, Any], attempts: Sequence[Attempt], trace: Mapping[str, Any]) -> dict[str, Any]:
    """One mode of the report.

    Args:
        mode: kind of closed network.
        result: what the chamber returned.
        attempts: all of the trace, the canary's included.
        trace: ``sha256``, ``size_bytes`` of the raw trace.
    """
    canary = result["canary"]
    tried = sorted([str(family), str(address), int(port)] for family, address, port in canary.get("tried", ()))
    since = int(canary.get("started_micros", 0))
    pids = set(canary.get("pids", ()))
    mine, others = told_apart(attempts, pids, since)
    control: dict[str, Any] = {
        "tried": tried,
        "caught": destinations_of(mine),
        "io_uring_denied": bool(canary.get("io_uring_denied")),
        "untraced_denied": bool(canary.get("untraced_denied")),
        "counters": dict(result["counters"]["control"]),
        "pids": sorted(pids),
        "started_micros": since,
    }
    control["holds"] = control_holds(mode, control)
    return {
        "mode": mode,
        "phases": [dict(phase) for phase in result["phases"]],
        "attempts": [asdict(attempt) for attempt in others],
        "counters": {"journey": dict(result["counters"]["journey"]), "starts": Counters().document()},
        "control": control,
        "starts_milliseconds": [],
        "trace": dict(trace),
    }


def told_apart(attempts: Iterable[Attempt], pids: Container[int], since_micros: int) -> tuple[list[Attempt], list[Attempt]]:
    """Those of the canary, and all others, in their order."""
    parts: tuple[list[Attempt], list[Attempt]] = ([], [])
    for attempt in attempts:
        parts[not (attempt.pid in pids and attempt.time_micros >= since_micros > 0)].append(attempt)
    return parts


def destinations_of(attempts: Iterable[Attempt]) -> list[list[str | int]]:
    """Where they went, each place once, sorted."""
    return [list(destination) for destination in sorted({attempt.destination for attempt in attempts})]


def with_starts(entry: Mapping[str, Any], milliseconds: Sequence[int], counters: Counters, refused: Sequence[Attempt] = ()) -> dict[str, Any]:
    """The mode with its start times, the packets that were sent meanwhile, and what the box's guard refused meanwhile."""
    attempts = [*entry["attempts"], *(asdict(attempt) for attempt in refused)]
    return {**entry, "attempts": attempts, "starts_milliseconds": list(milliseconds), "counters": {**entry["counters"], "starts": counters.document()}}


def control_holds(mode: str, control: Mapping[str, Any]) -> bool:
    """Rule 2."""
    tried, caught = control["tried"], control["caught"]
    counters = Counters(**control["counters"])
    seen = counters.unroutable if mode == "no-route" else min(counters.leaving_packets, counters.outer_packets)
    denied = control["io_uring_denied"] is True and control["untraced_denied"] is True
    return len(tried) >= MIN_CONTROL_WAYS and tried == caught and denied and seen > 0


def is_silent(entry: Mapping[str, Any]) -> bool:
    """Rule 3."""
    return not entry["attempts"] and all(Counters(**entry["counters"][when]).is_silent for when in ("journey", "starts"))


def went_well(entry: Mapping[str, Any]) -> bool:
    """Rule 4, for one mode."""
    return all_went_well(entry) and len(entry["starts_milliseconds"]) >= STARTS


def all_went_well(entry: Mapping[str, Any]) -> bool:
    """Whether the whole journey was made."""
    return [(phase["name"], phase["ok"]) for phase in entry["phases"]] == [(name, True) for name in PHASES]


def start_comparison(modes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians per mode, and whether rule 5 holds; true as long as there is nothing to compare."""
    medians = {entry["mode"]: round(median(entry["starts_milliseconds"])) for entry in modes if entry["starts_milliseconds"]}
    base = medians.get("no-route")
    compared = {mode: value for mode, value in medians.items() if mode != "no-route"} if base else {}
    return {
        "median_milliseconds": medians,
        "percent_of_no_route": {mode: round(100 * value / base) for mode, value in compared.items()} if base else {},
        "as_fast": all(value * 100 <= (base or 1) * START_PERCENT or value <= (base or 0) + START_MARGIN_MILLISECONDS for value in compared.values()),
    }


def verdict_of(modes: Sequence[Mapping[str, Any]]) -> str:
    """Rule 6."""
    if not modes or not all(control_holds(entry["mode"], entry["control"]) for entry in modes):
        return "invalid"
    if not all(is_silent(entry) for entry in modes):
        return "egress"
    if not all(went_well(entry) for entry in modes) or not start_comparison(modes)["as_fast"]:
        return "failed"
    return "sealed" if sorted(entry["mode"] for entry in modes) == sorted(MODES) else "partial"


def make_report(
    modes: Sequence[Mapping[str, Any]], *, tool: Mapping[str, Any], bundles: Mapping[str, Any], host: Mapping[str, Any], made_at: str, seconds: int
) -> dict[str, Any]:
    """The whole document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "made_at": made_at,
        "seconds": seconds,
        "tool": dict(tool),
        "bundles": dict(bundles),
        "host": dict(host),
        "modes": list(modes),
        "starts": start_comparison(modes),
        "attempts": total_attempts(modes),
        "verdict": verdict_of(modes),
    }


def total_attempts(modes: Sequence[Mapping[str, Any]]) -> int:
    """Rule 1."""
    return sum(len(entry["attempts"]) for entry in modes)
