"""Histories that were written once must mean the same for ever: every release reads what the log of an older one holds."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from services.orchestrator.domain import commands as cm
from services.orchestrator.domain.decide import decide
from services.orchestrator.domain.events import SCHEMA_VERSION, Envelope
from services.orchestrator.domain.task_state import TaskState, apply_envelope
from services.orchestrator.domain.upcasting import decode_envelope, encode_envelope
from tests.replay.record_histories import FOLDER, LIVES, fields_of

HISTORIES = sorted(FOLDER.glob("*.json"))
COMMITTED = FOLDER / "SHA256SUMS"


class Line(msgspec.Struct):
    seq: int
    envelope: msgspec.Raw


class History(msgspec.Struct):
    task: str
    entries: list[Line]
    expected: dict


def read(path: Path) -> History:
    return msgspec.json.decode(path.read_bytes(), type=History)


def replay(history: History) -> TaskState:
    state = None
    for entry in history.entries:
        state = apply_envelope(state, history.task, decode_envelope(msgspec.json.format(entry.envelope, indent=-1)), entry.seq)
    return state


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_history_replays_to_the_state_that_it_had(path: Path) -> None:
    history = read(path)
    fields = fields_of(replay(history))
    assert {name: fields[name] for name in history.expected} == history.expected


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_history_compacted_anywhere_goes_on_to_the_same_state(path: Path) -> None:
    history = read(path)
    whole = replay(history)
    for cut in range(1, len(history.entries)):
        before = replay(History(history.task, history.entries[:cut], {}))
        compaction = Envelope(v=SCHEMA_VERSION, at=before.updated_at, by="system:janitor", events=tuple(decide(before, cm.Compact(), 0.0)))
        state = apply_envelope(None, history.task, decode_envelope(encode_envelope(compaction)), history.entries[cut].seq - 1)
        for entry in history.entries[cut:]:
            state = apply_envelope(state, history.task, decode_envelope(msgspec.json.format(entry.envelope, indent=-1)), entry.seq)
        assert msgspec.structs.replace(state, entries=0) == msgspec.structs.replace(whole, entries=0)


def test_histories_are_only_added() -> None:
    """A digest that no longer fits: the file was changed. Put it back; show a new shape in a new file (``record_histories``) and add its digest."""
    listed = dict(reversed(line.split("  ")) for line in COMMITTED.read_text().splitlines())
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in HISTORIES}
    assert LIVES.keys() <= {path.stem for path in HISTORIES}
