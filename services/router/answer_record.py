"""An answer as it is kept: which ones may be kept, their bytes, and the events that a hit replays.

Owns: the stored form (``VERSION`` is part of every key: another form is another key). Does not own: keys, rights, the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Final

import msgspec

from appliance.contracts.llm.v1.api import Usage
from appliance.contracts.router.v1.api import ChatEvent, CitationEvent, DoneEvent, StepEvent, TokenEvent

VERSION: Final = 1
_KEPT_STEPS: Final = frozenset({"route", "search"})
_PIECES_PER_EVENT: Final = 256  # one write of the edge each: a long answer must not become one huge frame
_CITATION_FIELDS: Final = tuple(field.name for field in fields(CitationEvent))


class _Citation(msgspec.Struct, frozen=True, array_like=True):
    number: int
    document_id: str
    document_name: str
    space: str
    version: int
    page: int | None
    heading_path: tuple[str, ...]
    start: int
    end: int
    quote: str


class _Done(msgspec.Struct, frozen=True, array_like=True):
    reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    model: str
    invented_citations: int
    agent: str


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """``order`` keeps that of the stream, one byte per event: 0 = the next of ``pieces``, 1 = the next of ``citations``."""

    pieces: tuple[tuple[str, ...], ...]
    citations: tuple[_Citation, ...]
    order: bytes
    done: _Done


_decoder: Final = msgspec.msgpack.Decoder(_Kept)


def encode_answer(events: Sequence[ChatEvent]) -> bytes | None:
    """The bytes of a complete answer, None for one that must not be kept.

    Kept is what ended with ``stop`` and depends on nothing but its question, its sources and its model: no refusal (documents may come), no tool (its
    result depends on the world), no guardrail finding (each is audited when it happens), no other model than asked for.
    """
    done = events[-1] if events else None
    if not isinstance(done, DoneEvent) or done.finish_reason != "stop" or done.refused or done.cached or done.tool_calls:
        return None
    pieces: list[tuple[str, ...]] = []
    citations: list[_Citation] = []
    order = bytearray()
    for event in events[:-1]:
        if isinstance(event, TokenEvent):
            if order and order[-1] == 0 and len(pieces[-1]) + len(event.pieces) <= _PIECES_PER_EVENT:
                pieces[-1] += event.pieces
            else:
                pieces.append(tuple(event.pieces))
                order.append(0)
        elif isinstance(event, CitationEvent):
            citations.append(_Citation(*(getattr(event, name) for name in _CITATION_FIELDS)))
            order.append(1)
        elif not isinstance(event, StepEvent) or event.name not in _KEPT_STEPS:
            return None
    if not pieces:
        return None
    usage = done.usage
    kept = _Kept(
        tuple(pieces),
        tuple(citations),
        bytes(order),
        _Done(done.finish_reason, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, done.model, done.invented_citations, done.agent),
    )
    return msgspec.msgpack.encode(kept)


def decode_answer(data: bytes, kind: str) -> tuple[ChatEvent, ...] | None:
    """Events of the answer: a step ``cache`` (``kind``: exact or semantic), text and citations in their order, and a ``DoneEvent`` that says ``cached``.

    Steps of the first time (``search``, ``route``) are not repeated: they did not happen. None for bytes that are none of ours.
    """
    try:
        kept = _decoder.decode(data)
        pieces, citations = iter(kept.pieces), iter(kept.citations)
        events: list[ChatEvent] = [StepEvent("cache", {"kind": kind})]
        events += [TokenEvent(next(pieces)) if which == 0 else _citation(next(citations)) for which in kept.order]
    except (msgspec.MsgspecError, StopIteration, ValueError):
        return None
    done = kept.done
    usage = Usage(done.prompt_tokens, done.completion_tokens, done.cached_tokens)
    events.append(
        DoneEvent(done.reason, usage, done.model, invented_citations=done.invented_citations, agent=done.agent, cached=True),
    )
    return tuple(events)


def cited_documents(data: bytes) -> frozenset[tuple[str, int]]:
    """Documents, with their versions, that the answer cites."""
    return frozenset((one.document_id, one.version) for one in _decoder.decode(data).citations)


def _citation(kept: _Citation) -> CitationEvent:
    return CitationEvent(*(getattr(kept, name) for name in _CITATION_FIELDS))
