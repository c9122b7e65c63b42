"""Makes what ``bench.bundle`` measures with: a small tree to build from, and models of any size, sparse or random, that the hub takes for real."""

from __future__ import annotations

import json
import os
import shutil
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


class Tree:
    """A tree that ``appliance bundle build`` takes: the code of this repository, models.toml and a definition of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.definition = folder / "bundles" / "bench.toml"
        self.definition.parent.mkdir(parents=True)
        shutil.copytree(ROOT / "appliance", folder / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        self.name_models(None)

    def name_models(self, models_file: Path | None) -> None:
        """Let the bundle carry what ``models_file`` names, or no model."""
        (self.folder / "models.toml").write_text(models_file.read_text() if models_file else "schema_version = 1\n")
        self.definition.write_text(DEFINITION + (MODELS if models_file else ""))

    def change_one_line(self) -> None:
        """What a bug fix is."""
        with (self.folder / "appliance" / "home.py").open("a") as file:
            file.write("# fixed\n")


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
