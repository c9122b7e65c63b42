"""Tells calls of tools from text while an answer streams. Pure.

Two forms: ``<tool_call>{"name": …, "arguments": …}</tool_call>`` after any text, and an answer that is one JSON object (or a list of them) and nothing
else. Text is handed on as soon as it cannot be the beginning of a call any more; the text of a call is never shown.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import ToolCall
from services.llm.llama.guided import END_TAG, TAG

_BLOCK: Final = re.compile(re.escape(TAG) + r"(.*?)" + re.escape(END_TAG), re.DOTALL)


class _Call(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()  # as Llama 3 calls them


class CallReader:
    """Feed it pieces; ``names`` are the tools that may be called, ``certain`` = the answer can only be a call."""

    def __init__(self, names: Collection[str], *, certain: bool) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._shown = certain  # nothing to look for at the beginning of the text
        self._in_calls = certain

    def feed(self, pieces: list[str]) -> list[str]:
        """Pieces that are surely text."""
        if self._in_calls:
            self._held += "".join(pieces)
            return []
        out: list[str] = []
        for number, piece in enumerate(pieces):
            self._held += piece
            text, self._held = self._split(self._held)
            if text:
                out.append(text)
            if self._in_calls:
                self._held += "".join(pieces[number + 1 :])
                break
        return out

    def _split(self, text: str) -> tuple[str, str]:
        """What is text, and what must wait."""
        if not self._shown:
            start = text.lstrip()
            if not start:
                return "", text
            if start[0] in "{[":
                self._in_calls = True
                return "", text
        at = text.find(TAG)
        if at >= 0:
            self._in_calls = True
            return text[:at], text[at:]
        waits = next((length for length in range(min(len(TAG) - 1, len(text)), 0, -1) if TAG.startswith(text[-length:])), 0)
        self._shown = self._shown or len(text) > waits
        return text[: len(text) - waits], text[len(text) - waits :]

    def end(self, *, complete: bool) -> tuple[str, tuple[ToolCall, ...]]:
        """The text that was held for nothing, and the calls. An answer cut off (not ``complete``) in the middle of a call has only the calls before it."""
        calls = self._calls()
        if calls or (not complete and self._in_calls):
            return "", calls
        return self._held, ()

    def _calls(self) -> tuple[ToolCall, ...]:
        blocks = _BLOCK.findall(self._held) if TAG in self._held else [self._held]
        found: list[ToolCall] = []
        for block in blocks:
            for call in _decoded(block.strip()):
                if call.name not in self._names:
                    return ()
                arguments = bytes(call.arguments) or bytes(call.parameters) or b"{}"
                found.append(ToolCall(f"call_{secrets.token_hex(12)}", call.name, _unwrapped(arguments)))
        return tuple(found)


def _decoded(block: str) -> list[_Call]:
    kind: Any = list[_Call] if block.startswith("[") else _Call
    try:
        value = msgspec.json.decode(block, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else [value]


def _unwrapped(arguments: bytes) -> str:
    """Arguments as JSON text; some models write them as a string that holds JSON."""
    if arguments.startswith(b'"'):
        return str(msgspec.json.decode(arguments))
    return arguments.decode()
