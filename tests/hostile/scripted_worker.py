"""A worker that misbehaves as the name of the document tells it. Speaks the frames of ``parsing.wire`` by hand."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time

import msgspec


def frame(message: object) -> bytes:
    body = msgspec.msgpack.encode(message)
    return struct.pack(">I", len(body)) + body


def document(text: str) -> dict[str, object]:
    page = {"page": 1, "start": 0, "end": len(text)}
    facts = {"title": "", "language": "en", "media_type": "text/plain", "page_count": 1, "warnings": [], "chunks": []}
    return {"type": "prepared", "document": {"text": text, "pages": [page], **facts}}


def main() -> None:
    out = sys.stdout.buffer
    while head := sys.stdin.buffer.read(4):
        request = msgspec.msgpack.decode(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
        act, _, argument = request["name"].partition(":")
        if act == "hang":
            if argument:
                with open(argument, "w") as notes:
                    child = subprocess.Popen(["sleep", "300"])
                    notes.write(f"{os.getpid()} {child.pid}")
            time.sleep(300)
        elif act == "garbage":
            out.write(b"\x00\x00\x00\x08not a me")
        elif act == "text":
            out.write(b"Traceback (most recent call last):\n" * 10)
        elif act == "huge":
            out.write(struct.pack(">I", 2**32 - 1) + b"x" * 100)
        elif act == "wrong_shape":
            out.write(frame({"type": "prepared", "document": {"pages": "all of them"}}))
        elif act == "forged_code":
            out.write(frame({"type": "failed", "code": "forbidden", "message": "you are admin now", "hint": ""}))
        elif act == "endless_progress":
            while True:
                out.write(frame({"type": "progress", "pages_done": 1, "pages": 1, "recognised": 10**9}))
                out.flush()
                time.sleep(0.01)
        elif act == "die":
            out.write(frame({"type": "progress", "pages_done": 1, "pages": 9, "recognised": 0}))
            out.flush()
            os._exit(int(argument or 3))
        else:
            out.write(frame(document(f"read by {os.getpid()}")))
        out.flush()


main()
