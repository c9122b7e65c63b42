"""``appliance bundle build`` as an operator runs it: killed and run again, with a big file in little memory, and the embedded bundle for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from tests.unit.bundle.build_bed import DOCS, commit, make_bed, write_tree

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_MEMORY_BYTES = 200 * 2**20


def command(*arguments: str, **environment: str | Path) -> subprocess.Popen[str]:
    values = {key: str(value) for key, value in environment.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "appliance.cli.main", "bundle", "build", *arguments],
        env={**os.environ, **values}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], timeout_seconds: float = 100) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout_seconds)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, str | Path]:
    """A committed tree with a file of 40 MB; returns the environment for the command."""
    bed = make_bed(tmp_path)
    bed.define(DOCS)
    write_tree(bed.root, {"docs/big.bin": Random(1).randbytes(40_000_000)})
    commit(bed.root)
    return {"APPLIANCE_HOME": bed.home, "APPLIANCE_STATION": bed.station.folder, "APPLIANCE_BUILD_CACHE": bed.cache}


@pytest.mark.slow
def test_a_build_that_is_killed_at_any_time_is_run_again_and_gives_the_same_bytes(tmp_path: Path, tree: dict[str, str | Path]) -> None:
    definition = str(tmp_path / "tree/bundles/small.toml")
    (tmp_path / "out").mkdir()
    status, out, err = finish(command(definition, "-o", str(tmp_path / "out/whole"), "--json", **tree))
    assert status == 0, err
    assert json.loads(out)["signatures_missing"] == 0
    expected = sha256((tmp_path / "out/whole").read_bytes()).hexdigest()
    unfinished = tmp_path / "out" / ".b.unfinished"
    kills = 0
    for size in (1, 20_000_000):
        process = command(definition, "-o", str(tmp_path / "out/b"), **tree)
        while process.poll() is None and not (unfinished.exists() and unfinished.stat().st_size >= size):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        finish(process)
        kills += not (tmp_path / "out/b").exists()
        (tmp_path / "out/b").unlink(missing_ok=True)
    assert kills
    status, _, err = finish(command(definition, "-o", str(tmp_path / "out/b"), **tree))
    assert status == 0, err
    assert sha256((tmp_path / "out/b").read_bytes()).hexdigest() == expected
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["appliance-install.pyz", "appliance-install.pyz.sha256", "b", "whole"]


def test_memory_does_not_depend_on_the_size_of_a_model(tmp_path: Path) -> None:
    bed = make_bed(tmp_path)
    bed.define(DOCS)
    with (bed.root / "docs" / "weights.bin").open("wb") as file:
        file.truncate(500_000_000)
        file.seek(300_000_000)
        file.write(b"not only zeros")
    script = "import resource,subprocess,sys; r=subprocess.run(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r.returncode)"
    build = [sys.executable, "-m", "appliance.cli.main", "bundle", "build", str(tmp_path / "tree/bundles/small.toml"), "-o", str(tmp_path / "b")]
    environment = {"APPLIANCE_HOME": str(bed.home), "APPLIANCE_STATION": str(bed.station.folder), "APPLIANCE_BUILD_CACHE": str(bed.cache)}
    done = subprocess.run(
        [sys.executable, "-c", script, *build], env={**os.environ, **environment}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < MAX_MEMORY_BYTES
    assert (tmp_path / "b").stat().st_size < 20_000_000  # equal chunks are one blob


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--without", "nonsense"), "no such kind"),
        (("--issued-at", "yesterday"), "is no time"),
        (("-o", "/nowhere/at/all.bundle"), "cannot write"),
    ],
)
def test_a_wrong_option_is_refused_with_a_hint(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    bed = make_bed(tmp_path)
    bed.define(DOCS)
    environment = {"APPLIANCE_HOME": bed.home, "APPLIANCE_STATION": bed.station.folder, "APPLIANCE_BUILD_CACHE": bed.cache}
    status, out, err = finish(command(str(bed.root / "bundles/small.toml"), "-o", str(tmp_path / "b"), *arguments, **environment))
    assert status not in {0, 1}
    assert said in err
    assert "hint: " in err
    assert not out
    assert not (tmp_path / "b").exists()


def test_a_development_root_is_said_loudly(tmp_path: Path) -> None:
    bed = make_bed(tmp_path)
    bed.define(DOCS)
    environment = {"APPLIANCE_HOME": bed.home, "APPLIANCE_STATION": tmp_path / "new-station", "APPLIANCE_BUILD_CACHE": bed.cache}
    status, out, err = finish(command(str(bed.root / "bundles/small.toml"), "-o", str(tmp_path / "b"), "--json", **environment))
    assert status == 0, err
    assert "warning: signed with a development root" in err
    summary = json.loads(out)
    assert summary["development_root"] is True
    assert summary["root_fingerprint"] in err


@pytest.mark.slow
def test_the_embedded_bundle_builds_twice_with_the_same_bytes(tmp_path: Path) -> None:
    """From two clones with another umask and time zone; wheels come from the cache of this machine, models from its home."""
    cache = Path(os.environ.get("APPLIANCE_BUILD_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "appliance")
    home = Path(os.environ.get("APPLIANCE_HOME") or REPOSITORY / "var")
    if not (cache / "wheels").is_dir():
        pytest.skip(f"no wheels in {cache}: build once with `make bundle`")
    if not (home / "keys" / "models.pub.pem").is_file():
        pytest.skip(f"no signed models in {home}: `make setup`")
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    digests = []
    for number, zone in enumerate(("UTC", "Asia/Tokyo")):
        clone = tmp_path / f"clone{number}"
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(REPOSITORY), str(clone)], check=True)
        output = tmp_path / f"{number}.bundle"
        environment = {"APPLIANCE_HOME": home, "APPLIANCE_STATION": tmp_path / "station", "APPLIANCE_BUILD_CACHE": cache, "TZ": zone}
        arguments = (str(clone / "bundles/embedded.toml"), "-o", str(output), "--without", "os-packages", "--offline", "--json")
        status, out, err = finish(command(*arguments, **environment))
        if status and re.search(r"no wheel for|snapshot_", err):
            pytest.skip(f"the cache is of another lock, or models are missing: {err.strip().splitlines()[-2]}")
        assert status == 0, err
        digests.append(sha256(output.read_bytes()).hexdigest())
        assert json.loads(out)["size_bytes"] == output.stat().st_size
    assert digests[0] == digests[1]
