"""Conformance of an event log: the contract of the orchestrator's ``EventLog`` port, run against JetStream on one node, on three, and the fake in memory.

Each check takes two handles on one log, as two replicas have, and leaves entries behind; :func:`check_event_log` ends with the one that purges.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final, Protocol, cast

from appliance.contracts.orchestrator.v1.log import Entry, Extent, LostRaceError, Recorded
from appliance.kit.errors import ApplianceError

_WRITERS: Final = 20
_ROUNDS: Final = 15
_MOST: Final = 1000
_PATIENCE_SECONDS: Final = 60.0


class CheckedLog(Protocol):
    """The methods of the port that are checked."""

    async def append(self, entries: Sequence[Entry]) -> Sequence[int]: ...

    async def read(self, subject: str, after: int = 0) -> Sequence[Recorded]: ...

    def tail(self, after: int) -> AsyncIterator[Sequence[Recorded]]: ...

    async def purge(self, subject: str, *, keep: int = 0, below: int | None = None) -> None: ...

    async def last_sequence(self) -> int: ...

    async def extent(self) -> Extent: ...

    async def check(self) -> str: ...


async def check_event_log(log: CheckedLog, other: CheckedLog) -> None:
    """Run every check on two handles of one log.

    Raises:
        AssertionError: saying which promise is broken.
    """
    for check in CHECKS:
        await asyncio.wait_for(check(log, other), _PATIENCE_SECONDS)


async def entries_are_read_back_in_order(log: CheckedLog, other: CheckedLog) -> None:
    """What one replica appends, the other reads."""
    subject, space = _subject(), secrets.token_hex(4)
    assert list(await log.append([])) == [], "nothing cannot be appended"
    (first,) = await log.append([Entry(subject, 0, b"one", "id-" + space)])
    (second,) = await other.append([Entry(subject, first, b"")])
    assert second > first > 0, f"sequences do not grow: {first}, {second}"
    found = await log.read(subject)
    assert [(one.subject, one.sequence, one.body) for one in found] == [(subject, first, b"one"), (subject, second, b"")], f"read back: {found}"
    assert found[0].message_id == "id-" + space, "the message id is lost"
    assert found[1].message_id, "an entry has no message id"
    assert [one.sequence for one in await other.read(subject, first)] == [second], "reading does not begin behind the sequence"
    assert list(await log.read(subject, second)) == [], "there is something behind the newest entry"
    assert list(await log.read(_subject())) == [], "a subject that nobody used has entries"
    assert await other.last_sequence() >= second, "the log ends before its newest entry"
    assert await log.check(), "there is nothing to say about the log"


async def a_space_is_read_whole(log: CheckedLog, other: CheckedLog) -> None:
    """``>`` matches all below, and nothing beside; ``*`` any one token: a task is found without its space."""
    space = f"task.s{secrets.token_hex(4)}"
    for number in range(3):
        await log.append([Entry(f"{space}.t{number}", 0, b"%d" % number)])
    await log.append([Entry(f"{space}x.t", 0, b"beside")])
    assert [one.body for one in await other.read(f"{space}.>")] == [b"0", b"1", b"2"], "a space is not read whole"
    task = secrets.token_hex(4)
    await log.append([Entry(f"{space}.{task}", 0, b"wanted")])
    assert [one.body for one in await other.read(f"task.*.{task}")] == [b"wanted"], "* does not stand for any space"


async def a_wrong_expectation_stores_nothing(log: CheckedLog, other: CheckedLog) -> None:
    """All or none, and the loser is told which subject was taken."""
    taken, free = _subject(), _subject()
    (first,) = await log.append([Entry(taken, 0, b"mine")])
    for wrong in (0, first + 1, first - 1 if first > 1 else 99):
        assert await _lost(other, [Entry(taken, wrong, b"theirs")]) == (taken,), f"an append that expected {wrong} instead of {first} was stored"
    assert taken in await _lost(other, [Entry(free, 0, b"half"), Entry(taken, 0, b"half")]), "the loser is not told its subject"
    assert list(await log.read(free)) == [], "half of an append was stored"
    assert [one.body for one in await log.read(taken)] == [b"mine"], "a refused append was stored"
    assert await _lost(other, [Entry(free, 7, b"nobody wrote that")]) == (free,), "an expectation of something that is not there held"
    assert len(await other.append([Entry(free, 0, b"x"), Entry(taken, first, b"y")])) == 2, "an append that was refused before cannot be made rightly"


async def many_entries_are_stored_whole(log: CheckedLog, other: CheckedLog) -> None:
    """A thousand at once, in one go."""
    space = f"task.m{secrets.token_hex(4)}"
    entries = [Entry(f"{space}.t{number}", 0, b"%d" % number) for number in range(_MOST)]
    sequences = await log.append(entries)
    assert list(sequences) == list(range(sequences[0], sequences[0] + _MOST)), "an append of many is not in one piece"
    found = await other.read(f"{space}.>")
    assert [(one.subject, one.sequence, one.body) for one in found] == [
        (entry.subject, sequence, entry.body) for entry, sequence in zip(entries, sequences, strict=True)
    ], "an append of many is read back changed"
    assert await _code(log.append([Entry(f"{space}.u{number}", 0, b"") for number in range(_MOST + 1)])) == "too_large", (
        "more than the server takes passed"
    )
    assert await _code(log.append([Entry(_subject(), 0, bytes(9 * 1024 * 1024))])) == "too_large", "a body over the limit passed"
    twice = _subject()
    assert await _code(log.append([Entry(twice, 0, b""), Entry(twice, 0, b"")])) == "invalid_request", "one subject passed twice in one append"
    large = bytes(range(256)) * 16 * 1024
    (at,) = await log.append([Entry(_subject(), 0, large)])
    assert at > sequences[-1], "a large entry has an older sequence"


async def the_same_append_again_tells_what_became_of_it(log: CheckedLog, other: CheckedLog) -> None:
    """After ``unavailable`` the caller asks with the same entries: idempotent, from any replica, alone or together."""
    one, two, three = _subject(), _subject(), _subject()
    single = [Entry(one, 0, b"1", secrets.token_hex(8))]
    first = list(await log.append(single))
    assert list(await other.append(single)) == first, "the same append again has another outcome"
    both = [Entry(two, 0, b"2", secrets.token_hex(8)), Entry(three, 0, b"3", secrets.token_hex(8))]
    stored = list(await log.append(both))
    assert list(await log.append(both)) == stored, "the same append of two again has another outcome"
    await other.append([Entry(one, first[0], b"later")])
    assert list(await other.append(single)) == first, "an append that others built on is not recognised"
    assert [entry.body for entry in await log.read(one)] == [b"1", b"later"], "an append was stored twice"
    assert await _lost(log, [Entry(one, 0, b"1", secrets.token_hex(8))]) == (one,), "another id on a taken place is recognised as the one there"


async def one_of_many_racing_writers_wins(log: CheckedLog, other: CheckedLog) -> None:
    """Twenty writers on two replicas expect the same sequence: exactly one wins, every time."""
    subject, last = _subject(), 0
    for round_ in range(_ROUNDS):
        writes = [(log, other)[number % 2].append([Entry(subject, last, b"%d by %d" % (round_, number))]) for number in range(_WRITERS)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(won) == 1, f"{len(won)} of {_WRITERS} racing writers won: {outcomes}"
        assert all(isinstance(outcome, LostRaceError) for outcome in outcomes if isinstance(outcome, BaseException)), f"losers get {outcomes}"
        last = won[0][0]
    assert len(await log.read(subject)) == _ROUNDS, "a loser was stored"


async def only_the_guilty_lose(log: CheckedLog, other: CheckedLog) -> None:
    """Appends that share a commit do not share its fate."""
    space = f"task.g{secrets.token_hex(4)}"
    (moved,) = await other.append([Entry(f"{space}.t3", 0, b"first")])
    calls = [log.append([Entry(f"{space}.t{number}", 0, b"x")]) for number in range(100)]
    calls += [log.append([Entry(f"{space}.p{number}", 0, b"x"), Entry(f"{space}.q{number}", 5 if number == 2 else 0, b"x")]) for number in range(5)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    lost = {number: outcome.subjects for number, outcome in enumerate(outcomes) if isinstance(outcome, LostRaceError)}
    assert lost == {3: (f"{space}.t3",), 102: (f"{space}.q2",)}, f"others lost with the guilty: {lost}"
    assert not [outcome for outcome in outcomes if isinstance(outcome, BaseException) and not isinstance(outcome, LostRaceError)], f"{outcomes}"
    stored = await log.read(f"{space}.>")
    assert len(stored) == 100 + 8, f"{len(stored)} entries are stored"
    assert {one.sequence for one in stored} == {moved} | {at for outcome in outcomes if not isinstance(outcome, BaseException) for at in outcome}, (
        "others"
    )


async def a_cancelled_caller_disturbs_nobody(log: CheckedLog, other: CheckedLog) -> None:
    """Its entries are stored or not; the others' are."""
    space = f"task.c{secrets.token_hex(4)}"
    tasks = [asyncio.ensure_future(log.append([Entry(f"{space}.t{number}", 0, b"x")])) for number in range(20)]
    await asyncio.sleep(0)
    tasks[4].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)] == [4], f"{outcomes}"
    assert len(await other.read(f"{space}.>")) >= 19, "entries are missing"


async def the_tail_tells_everything_in_order(log: CheckedLog, other: CheckedLog) -> None:
    """From any sequence on, while others append; an empty batch says that the end was reached."""
    start = await log.last_sequence()
    space = f"task.f{secrets.token_hex(4)}"
    async with _closing(other.tail(start)) as tail:
        assert not await anext(tail), "the end of the log is not told"
        appends = [asyncio.ensure_future(log.append([Entry(f"{space}.t{number}", 0, b"%d" % number)])) for number in range(300)]
        seen: list[Recorded] = []
        while len(seen) < 300:
            seen += await anext(tail)
        sequences = [next(iter(await one)) for one in appends]
        assert [one.sequence for one in seen] == sorted(sequences), "the tail leaves out, repeats or turns round"
        assert {one.sequence: one.body for one in seen} == {at: b"%d" % number for number, at in enumerate(sequences)}, "the tail tells other bodies"
        assert all(one.message_id for one in seen), "the tail tells no message ids"
    async with _closing(log.tail(seen[9].sequence)) as tail:
        again: list[Recorded] = []
        while batch := await anext(tail):
            again += batch
        assert again == seen[10:], "a tail from the middle is not the rest"


async def purged_entries_are_gone_and_missed(log: CheckedLog, other: CheckedLog) -> None:
    """Purging forgets, never reuses a sequence, and a tail that would miss something says so."""
    subject, beside = _subject(), _subject()
    sequences: list[int] = []
    for number in range(6):
        sequences += await log.append([Entry(subject, sequences[-1] if sequences else 0, b"%d" % number)])
    await log.append([Entry(beside, 0, b"stays")])
    await log.purge(subject, below=sequences[2])
    assert [one.sequence for one in await other.read(subject)] == sequences[2:], "purging below a sequence purges others"
    await other.purge(subject, keep=1)
    assert [one.sequence for one in await log.read(subject)] == sequences[5:], "purging does not keep the newest"
    (last,) = await log.append([Entry(subject, sequences[5], b"goes on")])
    await log.purge(subject)
    assert list(await other.read(subject)) == [], "a purged subject has entries"
    assert await log.last_sequence() >= last, "purging turned the sequence back"
    assert await _lost(log, [Entry(subject, last, b"x")]) == (subject,), "an expectation of something purged holds"
    (after,) = await log.append([Entry(subject, 0, b"anew")])
    assert after > last, "a sequence was used again"
    assert [one.body for one in await log.read(beside)] == [b"stays"], "purging one subject purged another"
    before = await log.extent()
    await log.purge("task.>")
    extent = await log.extent()
    assert extent.size_bytes < before.size_bytes, "purging frees nothing"
    assert extent.first > after, "the log begins with something that was purged"
    assert extent.last == before.last == await log.last_sequence(), "the extent ends elsewhere than the log"
    assert await _code(_first(other.tail(0))) == "event_unknown", "a tail from before what was purged does not say so"
    assert not await _first(other.tail(await log.last_sequence())), "a tail from the end does not work after a purge"


CHECKS: Final[tuple[Callable[[CheckedLog, CheckedLog], Awaitable[None]], ...]] = (
    entries_are_read_back_in_order,
    a_space_is_read_whole,
    a_wrong_expectation_stores_nothing,
    many_entries_are_stored_whole,
    the_same_append_again_tells_what_became_of_it,
    one_of_many_racing_writers_wins,
    only_the_guilty_lose,
    a_cancelled_caller_disturbs_nobody,
    the_tail_tells_everything_in_order,
    purged_entries_are_gone_and_missed,
)


def _subject() -> str:
    return f"task.check.{secrets.token_hex(8)}"


async def _lost(log: CheckedLog, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Subjects of the lost race; empty when it was won."""
    try:
        await log.append(entries)
    except LostRaceError as error:
        return error.subjects
    return ()


async def _code(work: Awaitable[object]) -> str:
    try:
        await work
    except ApplianceError as error:
        return error.code
    return "no error"


def _closing(tail: AsyncIterator[Sequence[Recorded]]) -> aclosing[AsyncGenerator[Sequence[Recorded], None]]:
    return aclosing(cast("AsyncGenerator[Sequence[Recorded], None]", tail))


async def _first(tail: AsyncIterator[Sequence[Recorded]]) -> Sequence[Recorded]:
    async with _closing(tail) as batches:
        return await anext(batches)
