"""Checks the header of a GGUF file and takes a few facts from it; tensors are not read. Every count and length is bounded before it is used.

Format: ggml ``docs/gguf.md``, versions 2 and 3, little-endian: magic, version, counts, key-value pairs, tensor descriptions, padding, tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final

MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_KEYS: Final = 65_536
_MAX_TENSORS: Final = 262_144
_MAX_NAME_BYTES: Final = 1024
_MAX_TEXT_BYTES: Final = 16 * 1024 * 1024  # a chat template, a licence
_MAX_ARRAY: Final = 4 * 1024 * 1024  # a vocabulary has 0.3 million
_MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
_MAX_DIMENSIONS: Final = 8
_MAX_ALIGNMENT: Final = 1024 * 1024
_SCALARS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_FLOATS: Final = (6, 12)
_STRING: Final = 8
_ARRAY: Final = 9
_SMALL_TEXT: Final = 512  # longer values are skipped, not kept
_TEMPLATE_KEY: Final = "tokenizer.chat_template"
_MAX_TEMPLATE_BYTES: Final = 256 * 1024
_MAX_SIZE: Final = 1_000_000  # layers, channels, heads
_CACHE_BYTES_PER_VALUE: Final = 2  # float16


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What the header says; empty or 0 where it says nothing.

    ``cache_bytes_per_token`` is what a float16 key-value cache keeps for one token: layers x heads x (key + value) x 2, an upper bound for models that keep
    less in some layers.
    """

    architecture: str
    name: str
    license: str
    max_context: int
    tensors: int
    chat_template: str = ""
    cache_bytes_per_token: int = 0


class _Header:
    """Reads forward, and never more than the file has or the bound allows."""

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream = stream
        self._left = min(size_bytes, _MAX_HEADER_BYTES)
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > self._left:
            raise ValueError("is cut short, or has a header that is too large")
        data = self._stream.read(count)
        if len(data) != count:
            raise ValueError("is cut short")
        self._left -= count
        self.position += count
        return data

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.take(min(count, 1 << 20)))

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self, limit_bytes: int, keep_bytes: int) -> str:
        length = self.number("<Q")
        if length > limit_bytes:
            raise ValueError(f"has a text of {length} bytes in its header")
        if length > keep_bytes:
            self.skip(length)
            return ""
        return self.take(length).decode("utf-8", errors="replace")


def check_gguf(stream: BinaryIO, size_bytes: int) -> GgufFacts:
    """What the header says of the model.

    Raises:
        ValueError: the file is not well-formed, cut short, or out of bounds.
    """
    header = _Header(stream, size_bytes)
    if size_bytes < 24 or header.take(4) != MAGIC:
        raise ValueError("is not GGUF")
    version = header.number("<I")
    if version not in _VERSIONS:
        raise ValueError(f"has GGUF version {version}; known: 2 and 3")
    tensors, keys = header.number("<Q"), header.number("<Q")
    if tensors > _MAX_TENSORS or keys > _MAX_KEYS:
        raise ValueError(f"claims {tensors} tensors and {keys} keys")
    values = dict(_pair(header) for _ in range(keys))
    _check_tensors(header, tensors, size_bytes, values.get("general.alignment", 32))
    architecture = _text(values.get("general.architecture"))
    context = values.get(f"{architecture}.context_length")
    known = isinstance(context, int) and 0 < context <= 10_000_000
    template = values.get(_TEMPLATE_KEY)
    return GgufFacts(
        architecture, _text(values.get("general.name")), _text(values.get("general.license")), int(context) if known and context else 0, tensors,
        template if isinstance(template, str) else "", _cache_bytes_per_token(values, architecture),
    )  # fmt: skip


def _cache_bytes_per_token(values: Mapping[str, str | int | None], architecture: str) -> int:
    def number(key: str, absent: int) -> int:
        value = values.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and 0 < value <= _MAX_SIZE else absent

    heads = number("attention.head_count", 1)
    width = number("embedding_length", 0) // heads
    per_layer = number("attention.head_count_kv", heads) * (number("attention.key_length", width) + number("attention.value_length", width))
    return number("block_count", 0) * per_layer * _CACHE_BYTES_PER_VALUE


def _pair(header: _Header) -> tuple[str, str | int | None]:
    key = header.text(_MAX_NAME_BYTES, _MAX_NAME_BYTES)
    kind = header.number("<I")
    if kind == _STRING:
        return key, header.text(_MAX_TEXT_BYTES, _MAX_TEMPLATE_BYTES if key == _TEMPLATE_KEY else _SMALL_TEXT)
    if kind == _ARRAY:
        _skip_array(header)
        return key, None
    if kind in _FLOATS:
        header.skip(struct.calcsize(_SCALARS[kind]))
        return key, None
    return key, header.number(_scalar(kind))


def _skip_array(header: _Header) -> None:
    kind, count = header.number("<I"), header.number("<Q")
    if count > _MAX_ARRAY:
        raise ValueError(f"has a list of {count} values in its header")
    if kind == _STRING:
        for _ in range(count):
            header.text(_MAX_TEXT_BYTES, 0)
    else:
        header.skip(count * struct.calcsize(_scalar(kind)))  # lists of lists are in no published model: refused


def _check_tensors(header: _Header, count: int, size_bytes: int, alignment: str | int | None) -> None:
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment % 8:
        raise ValueError("has an alignment that makes no sense")
    last = 0
    for _ in range(count):
        name = header.text(_MAX_NAME_BYTES, _MAX_NAME_BYTES)
        dimensions = header.number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"has a tensor {name[:80]!r} of {dimensions} dimensions")
        header.skip(8 * dimensions + 4)
        offset = header.number("<Q")
        if offset % alignment:
            raise ValueError(f"has a tensor {name[:80]!r} that does not lie where it may")
        last = max(last, offset)
    start = -(-header.position // alignment) * alignment
    if count and start + last >= size_bytes:
        raise ValueError("is cut short: a tensor begins after its end")


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"has a value of unknown type {kind}")
    return _SCALARS[kind]


def _text(value: str | int | None) -> str:
    return value if isinstance(value, str) and value.isprintable() else ""
