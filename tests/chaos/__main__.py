"""``python -m tests.chaos [--seeds 20] [--first 1] [--tasks 2000] [--seconds 75]``: chaos runs one after the other; exits with 1 when one of them is wrong."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.plan import ALL_FAULTS, make_plan
from tests.chaos.run import chaos_run
from tests.integration.power_cut import power_disks, why_not

DISK_MB = 512


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--seed", "--first", dest="first", type=int, default=None, help="the first seed (others follow); default: of the time")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=75.0, help="how long tasks are submitted and faults injected")
    parser.add_argument("--end-seconds", type=float, default=180.0, help="how long the end is waited for")
    parser.add_argument("--faults", default=",".join(ALL_FAULTS))
    parser.add_argument("--keep", action="store_true", help="keep the folders of good runs too")
    arguments = parser.parse_args()
    first = arguments.first if arguments.first is not None else int(time.time()) % 1_000_000
    bad = 0
    for seed in range(first, first + arguments.seeds):
        bad += _one(seed, arguments)
    print(f"{arguments.seeds - bad} of {arguments.seeds} runs are right (seeds {first} to {first + arguments.seeds - 1})", flush=True)
    return 1 if bad else 0


@contextmanager
def _disk(folder: Path) -> Iterator[list[Path] | None]:
    """A small disk of its own for the first node, so that it can be filled; nothing where that is not possible."""
    if why_not() is not None:
        yield None
        return
    try:
        disks = power_disks(folder, 1, size_mb=DISK_MB)
        (disk,) = disks.__enter__()
    except (subprocess.CalledProcessError, OSError):
        yield None
        return
    try:
        yield [disk.path / "store", folder / "n1" / "store", folder / "n2" / "store"]
    finally:
        disks.__exit__(None, None, None)


def _one(seed: int, arguments: argparse.Namespace) -> bool:
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    plan = make_plan(seed, arguments.tasks, tuple(one for one in arguments.faults.split(",") if one))
    print(f"seed {seed}: {len(plan.tasks)} tasks, {len(plan.faults)} faults, in {folder}", flush=True)
    with _disk(folder) as stores:
        outcome = asyncio.run(
            chaos_run(
                folder,
                plan,
                seconds=arguments.seconds,
                end_seconds=arguments.end_seconds,
                say=lambda line: print(f"  {line}", flush=True),
                stores=stores,
            )
        )
    print(f"  {outcome.tasks} tasks, {outcome.events} entries, {outcome.seconds:.0f} s; {outcome.statuses}; {outcome.faults}")
    for line in outcome.wrong[:50]:
        print(f"  WRONG: {line}")
    print(f"seed {seed}: {'right' if not outcome.wrong else f'{len(outcome.wrong)} wrong'}", flush=True)
    if not outcome.wrong and not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(outcome.wrong)


if __name__ == "__main__":
    sys.exit(main())
