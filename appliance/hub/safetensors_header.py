"""Checks the header of a safetensors file without reading its tensors. Pure apart from the stream it is given.

Format: the safetensors README ("Format"): 8 bytes little-endian length, a JSON header, raw tensors that cover the rest without gap or overlap.
"""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO, Final

MAX_HEADER_BYTES: Final = 4 * 1024 * 1024  # the largest published shards have 0.5 MB; parsing this much JSON stays below 100 MB whatever it says
_LENGTH_BYTES: Final = 8
_BITS: Final = (
    dict.fromkeys(("F64", "I64", "U64", "C64"), 64)
    | dict.fromkeys(("F32", "I32", "U32"), 32)
    | dict.fromkeys(("F16", "BF16", "I16", "U16"), 16)
    | dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8)
    | {"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
)
_MAX_DIMENSIONS: Final = 16


def check_safetensors(stream: BinaryIO, size_bytes: int) -> int:
    """The number of tensors.

    Raises:
        ValueError: the file is not well-formed, cut short, or has bytes that belong to no tensor.
    """
    header_bytes = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    if size_bytes < _LENGTH_BYTES or header_bytes > size_bytes - _LENGTH_BYTES:
        raise ValueError("is cut short, or is not safetensors")
    if header_bytes > MAX_HEADER_BYTES:
        raise ValueError(f"has a header of {header_bytes} bytes, at most {MAX_HEADER_BYTES} are read")
    try:
        header = json.loads(stream.read(header_bytes), object_pairs_hook=_table)
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ValueError("has a header that is not JSON") from exc
    if not isinstance(header, dict):
        raise ValueError("has a header that is not a table")  # noqa: TRY004 - the file is wrong, not the caller
    header.pop("__metadata__", None)
    end = 0
    for start, stop in sorted(_span(name, entry) for name, entry in header.items()):
        if start != end:
            raise ValueError("has tensors that overlap or leave a gap")
        end = stop
    if end != size_bytes - _LENGTH_BYTES - header_bytes:
        raise ValueError("has another length than its header says")
    return len(header)


def _span(name: str, entry: Any) -> tuple[int, int]:
    try:
        bits, shape, (start, end) = _BITS[entry["dtype"]], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"has a malformed tensor {name[:80]!r} or one of unknown type") from exc
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(_whole(number) for number in (*shape, start, end)):
        raise ValueError(f"has a tensor {name[:80]!r} whose shape or place is no list of whole numbers")
    if start > end or (end - start) * 8 != math.prod(shape) * bits:
        raise ValueError(f"has a tensor {name[:80]!r} whose place does not fit its shape")
    return start, end


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("names a tensor twice")
    return table
