"""Makes what ``bench.bundle`` measures with: a small tree to build from, and models of any size, sparse or random, that the hub takes for real.

Run as a program it is the child process of ``models import`` and ``models verify``: ``python -m bench.bundle_inputs import HOME MODEL``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
MARKER_BYTES = 8
DEFINITION = """schema_version = 1
name = "bench"
[target]
os = "linux"
arch = "x86_64"
python = "3.11"
glibc = "2.36"
[[component]]
name = "project"
kind = "project"
include = ["appliance/*", "models.toml"]
"""
MODELS = """[[component]]
name = "models"
kind = "models"
"""
ENTRY = """schema_version = 1
[llm.big]
engine = "vllm"
path = "{path}"
format = "hf"
max_context = 2048
license = "Apache-2.0"
digest = "sha256:{digest}"
"""


class Tree:
    """A tree that ``appliance bundle build`` takes: the code of this repository, models.toml and a definition of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.definition = folder / "bundles" / "bench.toml"
        self.definition.parent.mkdir(parents=True)
        shutil.copytree(ROOT / "appliance", folder / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        self.name_model("", "")

    def name_model(self, path: str, digest: str) -> None:
        """Let models.toml name one snapshot, or none."""
        (self.folder / "models.toml").write_text(ENTRY.format(path=path, digest=digest) if path else "schema_version = 1\n")
        self.definition.write_text(DEFINITION + (MODELS if path else ""))

    def change_one_line(self) -> None:
        """What a bug fix is."""
        with (self.folder / "appliance" / "home.py").open("a") as file:
            file.write("# fixed\n")

    def size(self) -> int:
        """Bytes of what goes in from here."""
        return sum(path.stat().st_size for path in (self.folder / "appliance").rglob("*") if path.is_file())


def make_model(folder: Path, shards: int, shard_bytes: int, *, sparse: bool) -> None:
    """An HF folder: config and safetensors shards of one tensor each. Sparse: zeros with another 8 bytes in every MiB, so that no two chunks are equal."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"max_position_embeddings":2048}\n')
    for number in range(shards):
        make_shard(folder / f"model-{number + 1:05}-of-{shards:05}.safetensors", shard_bytes, sparse=sparse)


def make_shard(path: Path, size: int, *, sparse: bool) -> None:
    head = json.dumps({"weight": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        start = file.write(len(head).to_bytes(8, "little") + head)
        if sparse:
            file.truncate(start + size)
            for at in range(0, size - MARKER_BYTES, MIB):
                os.pwrite(file.fileno(), os.urandom(MARKER_BYTES), start + at)
            return
        for at in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - at)))


def import_into(home: Path, model: Path) -> None:
    """Prints path and digest of the snapshot."""
    from appliance.hub.importing import ImportRequest, import_model
    from appliance.hub.model_sources import look_at

    snapshot = import_model(home, look_at(model), ImportRequest("llm", "big", license="Apache-2.0", max_context=2048))
    print(f"llm/{snapshot.folder.name} {snapshot.digest}")


def verify_in(home: Path, path: str, digest: str) -> None:
    """Reads every byte of a snapshot."""
    from appliance.hub.snapshots import open_snapshot, verify

    verify(open_snapshot(home / "models", path, digest))


if __name__ == "__main__":
    if sys.argv[1] == "import":
        import_into(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        verify_in(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
