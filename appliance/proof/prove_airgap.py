"""The proof as a use case: tools, trust, one chamber per kind of network, the report. Owns the order of things and the scratch folder.

Sites and homes of the journey (gigabytes) are removed; raw traces and what the commands said stay when asked for.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from appliance.bundle.format.manifest import Manifest, format_time
from appliance.bundle.reader import open_bundle, read_manifest_unverified
from appliance.kit.errors import ApplianceError
from appliance.proof.attempts import Attempt, find_attempts
from appliance.proof.chamber import check_namespaces, run_plan
from appliance.proof.closed_networks import MODES
from appliance.proof.counters import Counters
from appliance.proof.envelope import trace_facts
from appliance.proof.inside import TRACE_NAME
from appliance.proof.journey import STARTS, Digests, Goods, make_plan
from appliance.proof.plan import Plan
from appliance.proof.refusals import refused_attempts
from appliance.proof.report import all_went_well, make_report, mode_document, with_starts
from appliance.proof.tools import Tools, find_tools, host_facts
from appliance.proof.trace import TraceUnreadableError, read_trace

_LARGE: Final = ("site", "home", "tmp")
Progress = Callable[[str, str, bool, float], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to prove.

    Attributes:
        modes: kinds of closed network, in this order.
        starts: starts per mode for the median.
        keep: folder for raw traces and logs; None to keep nothing.
        progress: told of mode, phase, whether it went well, seconds.
    """

    modes: Sequence[str] = MODES
    starts: int = STARTS
    keep: Path | None = None
    progress: Progress | None = None


def ready_tools() -> Tools:
    """Everything that must be there before the first step. Raises ``unavailable`` naming packages or rights."""
    tools = find_tools()
    check_namespaces(tools)
    return tools


def prove_airgap(goods: Goods, wishes: Wishes, tools: Tools) -> dict[str, Any]:
    """Run the journey in every closed network and make the report.

    Raises:
        ApplianceError: ``unavailable`` (the chamber), ``proof_invalid`` (an unreadable trace), ``bundle_…`` (the files).
    """
    began = time.monotonic()
    bundles = bundle_facts(goods)
    digests = Digests(*(bundles[which]["manifest_sha256"] for which in ("install", "upgrade")))
    modes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="appliance-proof-", ignore_cleanup_errors=True) as scratch:
        box: Plan | None = None
        for mode in wishes.modes:
            folder = Path(scratch).resolve() / mode
            folder.mkdir(mode=0o755)
            plan = make_plan(mode, folder, goods, digests)
            try:
                modes.append(prove_one(plan, tools, partial(_tell, wishes, mode)))
            finally:
                _keep(folder, wishes.keep)
            previous, box = (box, plan) if all_went_well(modes[-1]) else (plan, box)
            if previous is not None:
                shutil.rmtree(previous.folder, ignore_errors=True)
        if box is not None:
            modes = _measure(modes, box, wishes, tools)
    return make_report(
        modes,
        tool={"name": "appliance prove-airgap", "version": _own_version()},
        bundles=bundles,
        host=host_facts(tools),
        made_at=format_time(datetime.now(UTC).replace(microsecond=0)),
        seconds=round(time.monotonic() - began),
    )


def prove_one(plan: Plan, tools: Tools, progress: Callable[[str, bool, float], None] | None = None) -> dict[str, Any]:
    """One closed network: what the report says of it. Raises ``unavailable``, ``proof_invalid``."""
    result = run_plan(plan, tools, progress=progress)
    if result["recorder_status"] != 0:
        raise ApplianceError(
            "proof_invalid", f"{plan.mode}: the recorder ended with status {result['recorder_status']}", hint="repeat with --keep, see chamber.err"
        )
    trace = Path(plan.folder) / TRACE_NAME
    try:
        attempts = find_attempts(read_trace(trace))
    except TraceUnreadableError as error:
        raise ApplianceError(
            "proof_invalid", f"{plan.mode}: the trace is not readable: {error}", hint="repeat with --keep and send the trace with a report"
        ) from error
    return mode_document(plan.mode, result, [*attempts, *_refused(plan)], {**trace_facts(trace), "folder": plan.folder})


def _refused(plan: Plan) -> list[Attempt]:
    """What the box's guard has refused up to now. Raises ``proof_invalid``."""
    try:
        return refused_attempts(Path(plan.start_home) / "logs") if plan.start_home else []
    except TraceUnreadableError as error:
        raise ApplianceError("proof_invalid", f"{plan.mode}: {error}", hint="repeat, and send the log of the box with a report") from error


def _measure(modes: Sequence[Mapping[str, Any]], box: Plan, wishes: Wishes, tools: Tools) -> list[dict[str, Any]]:
    """Start the same installed box in every kind of network in turn, so that what else the machine does falls on all alike. The first round warms up."""
    times: dict[str, list[int]] = {entry["mode"]: [] for entry in modes}
    counters = {entry["mode"]: Counters() for entry in modes}
    refused: dict[str, list[Attempt]] = {entry["mode"]: [] for entry in modes}
    known = {attempt.address for attempt in _refused(box)}
    for number in range(wishes.starts + 1):
        for mode, taken in times.items():
            result = run_plan(replace(box, mode=mode, phases=()), tools)
            counters[mode] = counters[mode].plus(Counters(**result["counters"]))
            fresh = [attempt for attempt in _refused(box) if attempt.address not in known]
            refused[mode] += fresh
            known |= {attempt.address for attempt in fresh}
            if number:
                taken.append(int(result["milliseconds"]))
                _tell(wishes, mode, f"start {number}", True, taken[-1] / 1000)
    return [with_starts(entry, times[entry["mode"]], counters[entry["mode"]], refused[entry["mode"]]) for entry in modes]


def bundle_facts(goods: Goods) -> dict[str, dict[str, Any]]:
    """Who is installed, and by what. Whether the bundles are to be trusted is decided by the install itself; that these were run, by the journey.

    Raises:
        ApplianceError: ``bundle_…``; ``invalid_request`` when the second is no upgrade of the first.
    """
    first, second = (_manifest(path) for path in (goods.bundle, goods.upgrade))
    if first.name != second.name or first.sequence >= second.sequence:
        raise ApplianceError(
            "invalid_request",
            f"{goods.upgrade.name} ({second.name}, sequence {second.sequence}) is no upgrade of {goods.bundle.name} ({first.name}, {first.sequence})",
            hint="appliance prove-airgap --bundle OLDER --upgrade NEWER",
        )
    return {"install": _facts(first), "upgrade": _facts(second)}


def _manifest(path: Path) -> Manifest:
    with open_bundle(path) as file:
        return read_manifest_unverified(file)


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {"name": manifest.name, "version": manifest.version, "sequence": manifest.sequence, "manifest_sha256": manifest.digest}


def _tell(wishes: Wishes, mode: str, name: str, ok: bool, seconds: float) -> None:
    if wishes.progress is not None:
        wishes.progress(mode, name, ok, seconds)


def _keep(folder: Path, keep: Path | None) -> None:
    """Raw traces and logs, not sites and homes: those are gigabytes."""
    if keep is not None:
        shutil.rmtree(keep / folder.name, ignore_errors=True)
        shutil.copytree(folder, keep / folder.name, ignore=lambda place, _names: _LARGE if place == str(folder) else ())


def _own_version() -> str:
    try:
        return version("appliance")
    except PackageNotFoundError:  # runs from a generation, which is no installed package
        return f"unpackaged, Python {platform.python_version()}"
