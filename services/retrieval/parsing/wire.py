"""Frames between the box and a worker: a length of four bytes, then MessagePack of one typed struct.

Never pickle: a worker that a document took over must not be able to make the box run anything. Frames
from a worker are hostile input: their size is bounded before they are read, their shape is checked by msgspec.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

import msgspec

from services.retrieval.domain import PreparedDocument
from services.retrieval.parsing.limits import ParseLimits

_LENGTH: Final = struct.Struct(">I")
LENGTH_BYTES: Final = _LENGTH.size
MAX_REQUEST_BYTES: Final = 1024 * 1024


class ParseRequest(msgspec.Struct, frozen=True, tag="parse"):
    """Parse the file at ``path``, which the user calls ``name``."""

    path: str
    name: str
    limits: ParseLimits


class ProgressFrame(msgspec.Struct, frozen=True, tag="progress"):
    """Pages read, pages in all (0 = unknown), pages given to Tesseract."""

    pages_done: int
    pages: int
    recognised: int


class PreparedFrame(msgspec.Struct, frozen=True, tag="prepared"):
    """The document was read, cut into chunks and analysed."""

    document: PreparedDocument


class FailedFrame(msgspec.Struct, frozen=True, tag="failed"):
    """The document was refused; ``fatal`` when the worker ends itself afterwards."""

    code: str
    message: str
    hint: str
    fatal: bool = False


ReplyFrame = ProgressFrame | PreparedFrame | FailedFrame

_encoder: Final = msgspec.msgpack.Encoder()
_requests: Final = msgspec.msgpack.Decoder(ParseRequest)
_replies: Final[msgspec.msgpack.Decoder[ReplyFrame]] = msgspec.msgpack.Decoder(ProgressFrame | PreparedFrame | FailedFrame)


def pack(frame: ParseRequest | ReplyFrame) -> bytes:
    """A frame with its length in front."""
    body = _encoder.encode(frame)
    return _LENGTH.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """Length in bytes of the frame whose first four bytes are ``head``."""
    length: int = _LENGTH.unpack(head)[0]
    return length


def unpack_reply(body: bytes) -> ReplyFrame:
    """A worker's frame; raises ``msgspec.MsgspecError`` (DecodeError, ValidationError) for anything else."""
    return _replies.decode(body)


def read_request(source: BinaryIO) -> ParseRequest | None:
    """Next request on a blocking stream; None at its end."""
    head = source.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    length = length_of(head)
    if length > MAX_REQUEST_BYTES:
        return None
    return _requests.decode(source.read(length))
