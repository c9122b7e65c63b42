"""Bundles: speed of verify and build against sha256sum and cp, size of a delta, peak memory of every verb for a model that fits no memory.

``make bench-bundle`` or ``python -m bench.bundle [--json FILE] [--folder DIR] [--size 20G] [--rounds 3]``. Every figure is of the command line in a
process of its own (its start included), on bundles that ``appliance bundle build`` made on the spot. The disk must have room for twice ``--size``.
Seconds to install on a bare host and to roll back are measured by ``make test-site``: they need a host that boots.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.bundle.media.split import parse_size
from bench.bundle_inputs import Tree, make_model, make_shard
from bench.report import Report, arguments

CLI = (sys.executable, "-m", "appliance.cli.main")
MEMORY_MB = 200
SHARDS = 16


@dataclass(frozen=True)
class Run:
    """One finished process: seconds, peak memory (resident, of it and its children), what it printed."""

    seconds: float
    peak_mb: float
    output: str


def run(command: Sequence[str | Path], *, cores: set[int] | None = None, home: Path | None = None, cwd: Path | None = None) -> Run:
    """Run to the end; SystemExit when it fails."""
    environment = os.environ | ({"APPLIANCE_HOME": str(home)} if home else {}) | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, env=environment, cwd=cwd)
        if cores:
            os.sched_setaffinity(process.pid, cores)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{said[-2000:]}")
    return Run(seconds, usage.ru_maxrss / 1000, said)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One folder, one home, one station; removed at the end."""

    def __init__(self, folder: Path, report: Report, rounds: int) -> None:
        self.folder, self.report, self.rounds = folder, report, rounds
        self.home, self.station = folder / "home", folder / "station"
        self.tree = Tree(folder / "tree")
        self.sequence = 0

    def import_model(self, model: Path) -> Run:
        """Into the hub of the home, in place of what is there; the tree names it."""
        shutil.rmtree(self.home / "models", ignore_errors=True)
        (self.home / "models.toml").unlink(missing_ok=True)
        done = run(
            [*CLI, "models", "import", model, "--kind", "llm", "--name", "big", "--max-context", "2048", "--license", "Apache-2.0"], home=self.home
        )
        self.tree.name_models(self.home / "models.toml")
        return done

    def build(self, target: Path) -> Run:
        """Build what the tree holds now."""
        self.sequence += 1
        command = [*CLI, "bundle", "build", self.tree.definition, "-o", target, "--station", self.station, "--cache", self.folder / "cache"]
        return run([*command, "--offline", "--sequence", str(self.sequence)], home=self.home, cwd=self.tree.folder)

    def verb(self, *words: str | Path, cores: set[int] | None = None) -> Run:
        """``appliance bundle …``."""
        return run([*CLI, "bundle", *words], cores=cores, home=self.home)

    def trust(self) -> tuple[str, Path]:
        """Options that make ``verify`` and ``install`` trust the station."""
        return "--root", self.station / "root-chain.json"


def settle() -> None:
    """What was written before is not written while the next is measured."""
    os.sync()


def copying(bench: Bench, sources: Sequence[Path]) -> tuple[float, float]:
    """Seconds of ``cp -r`` of the inputs, and of the same until it is on the disk (as the build leaves its bundle); medians."""
    plain, durable = [], []
    for _ in range(bench.rounds):
        target = bench.folder / "copy"
        target.mkdir()
        settle()
        started = time.perf_counter()
        run(["cp", "-r", *sources, target])
        plain.append(time.perf_counter() - started)
        run(["sync", "-f", target])
        durable.append(time.perf_counter() - started)
        shutil.rmtree(target)
    return statistics.median(plain), statistics.median(durable)


def measure_speed(bench: Bench, model_bytes: int) -> None:
    """Build and verify on a model of random bytes, then a delta of it."""
    say(f"a model of {model_bytes / 1e9:.1f} GB in {SHARDS} shards")
    model = bench.folder / "model"
    make_model(model, SHARDS, model_bytes // SHARDS, sparse=False)
    bench.import_model(model)
    old, new = bench.folder / "old.bundle", bench.folder / "new.bundle"
    bench.build(old)
    say("build, warm, against copying the inputs")
    warm = []
    for _ in range(bench.rounds):
        old.unlink()
        settle()
        bench.sequence = 0
        warm.append(bench.build(old).seconds)
    plain, durable = copying(bench, [bench.home / "models", bench.tree.folder])
    seconds = statistics.median(warm)
    bench.report.add("build, warm", seconds, "s")
    bench.report.add("copying the inputs: cp -r, until on the disk", durable, "s")
    bench.report.add("build, warm / copying until on the disk", seconds / durable, "x", 1.3, higher=False)
    bench.report.add("build, warm / cp -r into the page cache only", seconds / plain, "x")
    measure_verify(bench, old)
    measure_media(bench, old, durable / model_bytes)
    measure_delta(bench, model, old, new)


def measure_verify(bench: Bench, bundle: Path) -> None:
    """The same file, the same cores, taking turns."""
    say("verify against sha256sum")
    one = {min(os.sched_getaffinity(0))}
    two = set(sorted(os.sched_getaffinity(0))[:2])
    sums, ones, twos, openssl = [], [], [], []
    for _ in range(bench.rounds):
        sums.append(run(["sha256sum", bundle], cores=one).seconds)
        ones.append(bench.verb("verify", bundle, *bench.trust(), "--threads", "1", cores=one).seconds)
        twos.append(bench.verb("verify", bundle, *bench.trust(), "--threads", "2", cores=two).seconds)
        if shutil.which("openssl"):
            openssl.append(run(["openssl", "dgst", "-sha256", bundle], cores=one).seconds)
    size = bundle.stat().st_size / 1e6
    base = statistics.median(sums)
    bench.report.add("sha256sum, one core", size / base, "MB/s")
    bench.report.add("verify, one core", size / statistics.median(ones), "MB/s")
    bench.report.add("verify / sha256sum, one core", base / statistics.median(ones), "x", 0.9)
    bench.report.add("verify, two cores", size / statistics.median(twos), "MB/s")
    if len(two) > 1:
        bench.report.add("verify / sha256sum, two cores", base / statistics.median(twos), "x", 1.6)
    if openssl:
        bench.report.add("verify / openssl dgst, one core", statistics.median(openssl) / statistics.median(ones), "x")


def measure_media(bench: Bench, bundle: Path, copy_seconds_per_byte: float) -> None:
    """Split and join against copying as many bytes."""
    say("split and join")
    parts, joined = bench.folder / "parts", bench.folder / "joined.bundle"
    splits, joins = [], []
    for _ in range(bench.rounds):
        settle()
        splits.append(bench.verb("split", bundle, "--size", "300M", "-o", parts).seconds)
        settle()
        joins.append(bench.verb("join", parts, "-o", joined).seconds)
        shutil.rmtree(parts)
        joined.unlink()
    copied = copy_seconds_per_byte * bundle.stat().st_size
    bench.report.add("split / copying until on the disk", statistics.median(splits) / copied, "x")
    bench.report.add("join / copying until on the disk", statistics.median(joins) / copied, "x")


def measure_delta(bench: Bench, model: Path, old: Path, new: Path) -> None:
    """One line of code, one shard with other bytes throughout."""
    say("delta for a one-line code change and one re-quantised shard")
    shard = sorted(model.glob("*.safetensors"))[SHARDS // 2]
    make_shard(shard, shard.stat().st_size - 120, sparse=False)
    changed = shard.stat().st_size
    bench.import_model(model)
    bench.tree.change_one_line()
    bench.sequence = 1
    bench.build(new)
    delta, full = bench.folder / "new.delta", bench.folder / "full.bundle"
    made = bench.verb("delta", "--from", old, new, "-o", delta)
    bench.verb("delta", "--apply", old, delta, "-o", full)
    if run(["cmp", new, full]).output:
        raise SystemExit("the delta does not give the bundle back")
    size = new.stat().st_size
    bench.report.add("full bundle", size / 1e6, "MB")
    bench.report.add("changed bytes (one line, one shard)", changed / 1e6, "MB")
    bench.report.add("delta", delta.stat().st_size / 1e6, "MB")
    bench.report.add("delta beyond the changed bytes, of the full bundle", 100 * (delta.stat().st_size - changed) / size, "%", 2, higher=False)
    bench.report.add("delta, time to make", made.seconds, "s")
    for path in (old, new, delta, full):
        path.unlink()
    shutil.rmtree(model)
    shutil.rmtree(bench.home / "models")


def measure_memory(bench: Bench, size: int) -> None:
    """Every verb on one snapshot of ``size`` bytes; what is no longer needed goes at once, so that there are never more than two copies."""
    room = shutil.disk_usage(bench.folder).free
    if room < 2.2 * size:
        raise SystemExit(f"needs {2.2 * size / 1e9:.0f} GB on {bench.folder}, {room / 1e9:.0f} are free: --folder DIR or --size 5G")
    base, bundle, delta, parts = (bench.folder / name for name in ("base.bundle", "big.bundle", "big.delta", "parts"))
    bench.tree.name_models(None)
    bench.sequence = 10
    bench.build(base)
    model = bench.folder / "model"
    make_model(model, 4, size // 4, sparse=True)
    peaks: list[float] = []

    def add(verb: str, done: Run) -> None:
        say(f"{verb}: {done.seconds:.0f} s, {done.peak_mb:.0f} MB")
        peaks.append(done.peak_mb)
        bench.report.add(f"peak memory, {size / 2**30:g} GiB model: {verb}", done.peak_mb, "MB", MEMORY_MB, higher=False)

    add("models import", bench.import_model(model))
    shutil.rmtree(model)
    add("models verify", run([*CLI, "models", "verify", "llm.big"], home=bench.home))
    add("build", bench.build(bundle))
    shutil.rmtree(bench.home / "models")
    add("verify", bench.verb("verify", bundle, *bench.trust()))
    add("inspect", bench.verb("inspect", bundle, "--files", "--json"))
    add("diff", bench.verb("diff", base, bundle, "--json"))
    add("delta", bench.verb("delta", "--from", base, bundle, "-o", delta))
    bundle.unlink()
    add("delta --apply", bench.verb("delta", "--apply", base, delta, "-o", bundle))
    delta.unlink()
    add("split", bench.verb("split", bundle, "--size", "3900M", "-o", parts))
    bundle.unlink()
    add("join", bench.verb("join", parts, "-o", bundle))
    shutil.rmtree(parts)
    site = ["--site", bench.folder / "site", "--home", bench.folder / "site-home", "--no-start"]
    add("install", bench.verb("install", bundle, *bench.trust(), *site))


def main() -> int:
    """Measure, print a table, write JSON lines when asked."""
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (the disk that is measured)")
    parser.add_argument("--size", default="20G", help="model for peak memory; 0 leaves that out")
    parser.add_argument("--model-size", default="1G", help="model for build, verify and delta; 0 leaves that out")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; the median counts")
    options = parser.parse_args()
    os.umask(0o077)
    report = Report("bundle", options.json)
    with tempfile.TemporaryDirectory(prefix="bench-bundle-", dir=options.folder) as name:
        bench = Bench(Path(name), report, options.rounds)
        if options.model_size != "0":
            measure_speed(bench, parse_size(options.model_size))
        if options.size != "0":
            measure_memory(bench, parse_size(options.size))
    say("install on a bare host and rollback (seconds): not measured here, make test-site does (it needs a host that boots)")
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
