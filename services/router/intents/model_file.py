"""The file of a trained classifier: header, plain arrays, digest. Owns reading and writing; nothing in it is ever run.

Layout: 8 bytes of name and version, 8 bytes of header length (little endian), the header (JSON), the arrays one after the other, 32 bytes of SHA-256 over
all before. Invariants:
1. What is read has the digest that it carries, arrays of known kinds, and shapes that fit each other.
2. The name appears by ``rename`` after ``fsync``: a reader finds the old file or the new one.
3. Sizes are bounded before anything is allocated.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from appliance.kit.errors import ApplianceError
from services.router.intents.intent_model import Calibration, Examples, IntentModel, quantise_rows
from services.router.intents.logistic import Logistic
from services.router.intents.meaning_training import MeaningHead

MAGIC: Final = b"APLINT\x00\x01"
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
_MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
_DIGEST_BYTES: Final = 32
_KINDS: Final[Mapping[str, np.dtype[Any]]] = {"f4": np.dtype("<f4"), "i1": np.dtype("<i1")}
_AGAIN: Final = "train it again: appliance router train"


class _ArrayEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    kind: str
    shape: list[int]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    labels: list[str]
    calibration: dict[str, Any]
    starts: list[int]
    texts: list[str]
    encoder: str
    about: dict[str, Any]
    arrays: list[_ArrayEntry]


def write_model(file: Path, model: IntentModel) -> str:
    """Write atomically; the version (digest, hexadecimal) of what was written.

    Raises:
        ApplianceError: ``too_large``, ``disk_full`` when it cannot be written.
    """
    content = _encode(model)
    if len(content) + _DIGEST_BYTES > MAX_FILE_BYTES:
        raise ApplianceError("too_large", f"the classifier would be larger than {MAX_FILE_BYTES} bytes", hint="use fewer routes or fewer examples")
    digest = hashlib.sha256(content).digest()
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with draft.open("xb") as out:
            out.write(content + digest)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as exc:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ApplianceError("disk_full", f"cannot write {file}: {exc.strerror}", hint="free space, or see who owns the folder") from exc
    return digest.hex()


def read_model(file: Path) -> IntentModel:
    """Read and check.

    Raises:
        ApplianceError: ``snapshot_missing``, ``snapshot_altered``.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _altered(file, f"larger than {MAX_FILE_BYTES} bytes")
        content = file.read_bytes()
    except FileNotFoundError as exc:
        raise ApplianceError("snapshot_missing", f"there is no trained classifier {file}", hint="train it: appliance router train") from exc
    except OSError as exc:
        raise _altered(file, exc.strerror or "cannot be read") from exc
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if body[:8] != MAGIC:
        raise _altered(file, "not a classifier of this release")
    if hashlib.sha256(body).digest() != digest:
        raise _altered(file, "its digest is another")
    try:
        return _decode(body, digest.hex())
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise _altered(file, str(exc)) from exc


def _altered(file: Path, reason: str) -> ApplianceError:
    return ApplianceError("snapshot_altered", f"{file} cannot be used: {reason}", hint=_AGAIN)


def _encode(model: IntentModel) -> bytes:
    vectors, scales = quantise_rows(model.examples.vectors) if model.examples.vectors.size else (np.empty((0, 0), np.int8), np.empty(0, np.float32))
    arrays: dict[str, Any] = {
        "idf": model.idf,
        "codes": model.codes,
        "scales": model.scales,
        "bias": model.bias,
        "examples": vectors,
        "example_scales": scales,
    }
    for number, head in enumerate(model.heads):
        for part in ("inner", "inner_bias", "outer", "outer_bias"):
            arrays[f"head{number}.{part}"] = getattr(head, part)
    entries = [_ArrayEntry(name, "i1" if array.dtype == np.int8 else "f4", list(array.shape)) for name, array in arrays.items()]
    header = msgspec.json.encode(
        _Header(
            list(model.labels), _plain(model.calibration), list(model.examples.starts), list(model.examples.texts), model.encoder,
            dict(model.about), entries,
        )
    )  # fmt: skip
    packed = b"".join(np.ascontiguousarray(array, _KINDS[entry.kind]).tobytes() for array, entry in zip(arrays.values(), entries, strict=True))
    return MAGIC + len(header).to_bytes(8, "little") + header + packed


def _decode(body: bytes, version: str) -> IntentModel:
    length = int.from_bytes(body[8:16], "little")
    if length > min(_MAX_HEADER_BYTES, len(body)):
        raise ValueError("the header is too long")
    header = msgspec.json.decode(body[16 : 16 + length], type=_Header)
    arrays, place = {}, 16 + length
    for entry in header.arrays:
        kind, shape = _KINDS[entry.kind], entry.shape
        if not 1 <= len(shape) <= 2 or any(not 0 <= side <= MAX_FILE_BYTES for side in shape):
            raise ValueError(f"{entry.name} has no such shape")
        count = int(np.prod(shape, dtype=np.int64))
        if place + count * kind.itemsize > len(body):
            raise ValueError(f"{entry.name} is cut off")
        arrays[entry.name] = np.frombuffer(body, kind, count, place).reshape(shape)
        place += count * kind.itemsize
    if place != len(body):
        raise ValueError("there is more than the header says")
    model = _model(header, arrays, version)
    _check(model)
    return model


def _model(header: _Header, arrays: Mapping[str, Any], version: str) -> IntentModel:
    count = sum(name.endswith(".inner") for name in arrays)
    heads = tuple(MeaningHead(*(arrays[f"head{n}.{part}"] for part in ("inner", "inner_bias", "outer", "outer_bias"))) for n in range(count))
    vectors = arrays["examples"].astype(np.float32) * arrays["example_scales"][:, None]
    return IntentModel(
        labels=tuple(header.labels), idf=arrays["idf"], codes=arrays["codes"], scales=arrays["scales"], bias=arrays["bias"], heads=heads,
        examples=Examples(vectors, tuple(header.starts), tuple(header.texts)), calibration=_calibration(header.calibration),
        encoder=header.encoder, about=header.about, version=version,
    )  # fmt: skip


def _check(model: IntentModel) -> None:
    """Shapes that fit each other, and finite numbers."""
    routes, buckets, rows = len(model.labels), len(model.idf), len(model.examples.texts)
    starts = model.examples.starts
    fits = (
        routes >= 2
        and len(set(model.labels)) == routes
        and buckets & (buckets - 1) == 0 < buckets
        and model.codes.shape == (buckets, routes)
        and model.codes.dtype == np.int8
        and model.scales.shape == (buckets,)
        and model.bias.shape == (routes,)
        and len(starts) == routes + 1
        and list(starts) == sorted(starts)
        and (starts[0], starts[-1]) == (0, rows)
        and len(model.examples.vectors) == rows
    )
    width = model.dimensions
    for head in model.heads:
        hidden = head.inner.shape[1]
        fits = fits and head.inner.shape == (width, hidden) and head.inner_bias.shape == (hidden,)
        fits = fits and head.outer.shape == (hidden, routes) and head.outer_bias.shape == (routes,)
    fits = fits and (not rows or not width or model.examples.vectors.shape == (rows, width))
    if not fits:
        raise ValueError("its arrays do not fit each other")
    floats = [
        model.idf,
        model.scales,
        model.bias,
        model.examples.vectors,
        *(part for h in model.heads for part in (h.inner, h.outer, h.inner_bias, h.outer_bias)),
    ]
    if not all(bool(np.isfinite(array).all()) for array in floats):
        raise ValueError("it holds numbers that are none")


def _plain(calibration: Calibration) -> dict[str, Any]:
    return {
        "temperatures": [calibration.words_temperature, calibration.meaning_temperature],
        "exit_at": calibration.exit_at,
        "right": [[list(one.weights), one.bias] for one in calibration.right],
        "inside": [[list(one.weights), one.bias] for one in calibration.inside],
        "floors": list(calibration.floors),
    }


def _calibration(plain: Mapping[str, Any]) -> Calibration:
    def pair(rows: Any) -> tuple[Logistic, Logistic]:
        first, second = (Logistic(tuple(float(weight) for weight in weights), float(bias)) for weights, bias in rows)
        if len(first.weights) != 3 or len(second.weights) not in {3, 5}:
            raise ValueError("the calibration looks at other features")
        return first, second

    words, meaning = map(float, plain["temperatures"])
    low, high = map(float, plain["floors"])
    return Calibration(words, meaning, float(plain["exit_at"]), pair(plain["right"]), pair(plain["inside"]), (low, high))
