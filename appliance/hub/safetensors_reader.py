"""Reads the safetensors format with numpy alone: 8 bytes little-endian header length, a JSON header, then the raw tensors.

Format: the safetensors README ("Format"). Only float32 and int64 are known; weights of other types are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_LENGTH_BYTES: Final = 8
_MAX_HEADER_BYTES: Final = 100_000_000  # the limit of the reference implementation
_TYPES: Final[Mapping[str, np.dtype[Any]]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}


def read_safetensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Tensors by name, as read-only views into ``data``.

    Raises:
        ValueError: the bytes are not a well-formed file of known types.
    """
    header_bytes = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < _LENGTH_BYTES or header_bytes > min(_MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES):
        raise ValueError("truncated header")
    header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + header_bytes])
    if not isinstance(header, dict):
        raise ValueError("the header is not a table")  # noqa: TRY004 - the file is wrong, not the caller
    header.pop("__metadata__", None)
    body = memoryview(data)[_LENGTH_BYTES + header_bytes :]
    return {name: _tensor(name, entry, body) for name, entry in header.items()}


def _tensor(name: str, entry: Any, body: memoryview) -> npt.NDArray[Any]:
    try:
        dtype, shape, (start, end) = _TYPES[entry["dtype"]], [int(size) for size in entry["shape"]], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{name}: malformed entry or unknown type") from exc
    if not 0 <= start <= end <= len(body) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: the offsets do not fit the shape")
    return np.frombuffer(body[start:end], dtype).reshape(shape)
