"""What goes into the event log and comes out of it. Here, not in the service, because fakes and conformance checks of ``appliance/testing`` know it too."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What shall be appended: ``body`` on ``subject``, if the newest message there still has sequence ``expected`` (0 = none)."""

    subject: str
    expected: int
    body: bytes
    message_id: str = ""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """What was appended."""

    subject: str
    sequence: int
    body: bytes
    message_id: str = ""


class Extent(msgspec.Struct, frozen=True, gc=False):
    """How far a log reaches: sequences of its oldest and newest entry (``first`` is ``last + 1`` when it is empty) and its size."""

    first: int
    last: int
    size_bytes: int


class LostRaceError(Exception):
    """Another append to one of the subjects was first: nothing of this one was stored. Read the subject and decide again."""

    def __init__(self, subjects: Sequence[str]) -> None:
        super().__init__(", ".join(subjects))
        self.subjects = tuple(subjects)
