"""Reading records for people and exports. Says nothing about whether they can be trusted: that is ``verify``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from appliance.audit.journal import list_segments
from appliance.audit.record import Record

_decode = msgspec.json.Decoder(Record).decode


def iterate_records(folder: Path, *, first_seq: int = 1) -> Iterator[Record]:
    """Records from ``first_seq`` on, in order, one segment line at a time; lines that are no records are passed over."""
    segments = list_segments(folder)
    later_starts = [int(path.stem) for path in segments[1:]]
    for path, next_start in zip(segments, [*later_starts, None], strict=True):
        if next_start is not None and next_start <= first_seq:
            continue
        with path.open("rb") as file:
            for line in file:
                record = _record(line)
                if record is not None and record.seq >= first_seq:
                    yield record


def _record(line: bytes) -> Record | None:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a seal has no action; a line being written has no end
        return None
