"""Which files may become part of a model: decided by name and by content. Owns the list of what is refused.

The danger is a file that runs code when a library loads it: pickles under any name, archives with pickles, Python for ``trust_remote_code``.

Invariants:
1. Only known kinds of file are taken; each is checked to be what its name says.
2. Nothing is unpickled, unpacked or imported to find out.
"""

from __future__ import annotations

import codecs
import os
import pickletools
import re
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from appliance.hub.gguf_header import check_gguf
from appliance.hub.safetensors_header import check_safetensors
from appliance.hub.snapshot_files import open_plain
from appliance.kit.errors import ApplianceError

PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz", ".mar", ".pt2", ".nemo"})
PROGRAM_SUFFIXES: Final = frozenset({".py", ".pyc", ".pyo", ".pyd", ".so", ".dll", ".dylib", ".sh", ".exe", ".whl", ".egg", ".ipynb", ".js"})
# pictures of the model card, and the same weights for frameworks that nothing here reads: not taken along, and said so
LEFT_OUT_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".h5", ".msgpack", ".ot", ".tflite", ".mlmodel"})
_TEXT_SUFFIXES: Final = frozenset(
    {"", ".json", ".jsonl", ".txt", ".md", ".rst", ".jinja", ".jinja2", ".yaml", ".yml", ".toml", ".tiktoken", ".vocab", ".merges"}
)
_RAW_SUFFIXES: Final = frozenset({".onnx_data", ".data"})  # tensors of an ONNX model that lie beside it
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_ARCHIVES: Final = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"\x7fELF", b"MZ", b"#!")
_HEAD_BYTES: Final = 4096
_CHUNK_BYTES: Final = 1024 * 1024
_CONVERT_HINT: Final = "convert to safetensors on a machine that you can afford to lose, and import the result"


def is_left_out(name: str) -> bool:
    """Whether a file stays behind silently or with a word: hidden ones, pictures, other frameworks' weights."""
    path = PurePosixPath(name)
    return any(part.startswith(".") for part in path.parts) or path.suffix.lower() in LEFT_OUT_SUFFIXES


def refuse_by_name(name: str) -> None:
    """Raise ``model_refused`` for a name that can only be wrong."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise refused(name, "is a pickle, or may hold one: loading it can run any program", _CONVERT_HINT)
    if suffix in PROGRAM_SUFFIXES:
        raise refused(
            name, "is a program (trust_remote_code); models are data here", "use a model whose architecture the engine knows, without code of its own"
        )
    if not _SAFE_NAME.fullmatch(name) or len(name) > 400:
        raise refused(name, "has a name that a snapshot cannot have", "rename it: letters, digits, '.', '-', '_'")
    if not _is_known(suffix):
        raise refused(name, "is of a kind that no engine reads", "take it out of the folder")


def check_content(file: Path, name: str) -> None:
    """Look into ``file``, which is to be ``name`` in the snapshot; memory does not depend on its size.

    Raises:
        ApplianceError: ``model_refused``.
    """
    suffix = PurePosixPath(name).suffix.lower()
    try:
        with open_plain(file) as stream:
            size_bytes = os.fstat(stream.fileno()).st_size
            head = stream.read(_HEAD_BYTES)
            if suffix != ".safetensors" and looks_like_pickle(head):
                raise refused(name, "is a pickle under another name: loading it can run any program", _CONVERT_HINT)
            if head.startswith(_ARCHIVES):
                raise refused(name, "is an archive or a program under another name", "unpack it and look at what is in it")
            stream.seek(0)
            _CHECKS.get(suffix, _check_text)(stream, size_bytes)
    except OSError as exc:
        raise refused(name, f"cannot be read: {exc.strerror}", "copy the model again") from exc
    except ValueError as exc:
        raise refused(name, str(exc), "fetch or export the model again: it is damaged, or not what its name says") from exc


def looks_like_pickle(head: bytes) -> bool:
    """Whether ``head`` begins like a pickle of protocol 2 or later; the opcodes are read, nothing is run."""
    if len(head) < 4 or head[0] != 0x80 or not 2 <= head[1] <= 5:
        return False
    known = 0
    try:
        for opcode, _, _ in pickletools.genops(BytesIO(head)):
            known += 1
            if opcode.name == "STOP" or known >= 8:
                return True
    except Exception:  # a cut-off argument raises several types; what was read until then decides
        return known >= 3
    return known >= 3


def refused(name: str, reason: str, hint: str) -> ApplianceError:
    """The refusal of one file."""
    return ApplianceError("model_refused", f"{name} {reason}", hint=hint)


def _is_known(suffix: str) -> bool:
    return suffix in _TEXT_SUFFIXES or suffix in _RAW_SUFFIXES or suffix in _CHECKS


def _check_text(stream: BinaryIO, _size_bytes: int) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk := stream.read(_CHUNK_BYTES):
            if "\0" in decoder.decode(chunk):
                raise ValueError("is not text")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        raise ValueError("is not text") from exc


def _check_onnx(stream: BinaryIO, _size_bytes: int) -> None:
    if stream.read(1) != b"\x08":  # field 1 of ModelProto, ir_version; written first by every known exporter
        raise ValueError("is not ONNX")


def _check_pieces(stream: BinaryIO, _size_bytes: int) -> None:
    if stream.read(1) != b"\x0a":  # field 1 of SentencePiece's ModelProto
        raise ValueError("is not a SentencePiece vocabulary")


def _check_raw(_stream: BinaryIO, _size_bytes: int) -> None:
    """Raw tensors have no form; what they must not be was checked before."""


def _check_gguf(stream: BinaryIO, size_bytes: int) -> None:
    check_gguf(stream, size_bytes)


def _check_safetensors(stream: BinaryIO, size_bytes: int) -> None:
    check_safetensors(stream, size_bytes)


_CHECKS: Final = {
    ".safetensors": _check_safetensors,
    ".gguf": _check_gguf,
    ".onnx": _check_onnx,
    ".model": _check_pieces,
    ".spm": _check_pieces,
    **dict.fromkeys(_RAW_SUFFIXES, _check_raw),
}
