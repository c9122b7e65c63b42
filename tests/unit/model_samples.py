"""What tests of the hub start from: a tiny snapshot, a models.toml that names it."""

from __future__ import annotations

from pathlib import Path

from appliance.hub.model_trust import ModelSigner, ModelTrust
from appliance.hub.snapshot_writing import write_snapshot
from appliance.hub.snapshots import Snapshot

TINY = "embed/tiny-v1"
SIGNER = ModelSigner.generate()
TRUST = ModelTrust.of(SIGNER.public_key)
CONTENT = {"model.onnx": b"weights " * 1000, "tokenizer.json": b"{}", "sub/notes.txt": b"a file in a folder"}
EMBED = """
[embed.minilm]
engine = "onnx"
source = "some-package==1.0"
source_sha256 = "sha256:{zeros}"
path = "embed/tiny-v1"
format = "onnx"
languages = ["en"]
max_context = 256
dimensions = 384
digest = "sha256:{zeros}"
""".format(zeros="0" * 64)


def fill(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_tiny(hub: Path, path: str = TINY, *, signer: ModelSigner | None = SIGNER) -> Snapshot:
    """A small snapshot, signed with a key that only :data:`TRUST` knows."""
    return write_snapshot(hub, path, {"package": "tiny==1"}, fill, signer=signer)


def write_models(folder: Path, text: str, *, version: str = "schema_version = 1\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "models.toml"
    file.write_text(version + text, encoding="utf-8")
    return file
