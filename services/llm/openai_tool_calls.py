"""Puts tool calls together from the pieces in which an endpoint streams them. Pure; owns the limits on their number and size.

Invariants: at most ``MAX_CALLS`` calls and ``MAX_BYTES`` of names and arguments are ever held; calls that were cut off (``length``, ``content_filter``) are no calls.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from appliance.contracts.llm.v1.api import ToolCall, ToolCalls
from appliance.kit.errors import ApplianceError

MAX_CALLS: Final = 64
MAX_BYTES: Final = 1024 * 1024
_MAX_NAME: Final = 256
_HINT: Final = "check the log of the model server: its tool-call parser must fit the model"


class FunctionPiece(msgspec.Struct, frozen=True):
    """Name and a stretch of the arguments; some servers give arguments as an object."""

    name: str | None = None
    arguments: Any = None


class CallPiece(msgspec.Struct, frozen=True):
    """One entry of ``delta.tool_calls`` or ``message.tool_calls``."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class _Begun:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class CallGatherer:
    """Takes pieces, gives whole calls."""

    __slots__ = ("_at", "_bytes", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Begun] = []
        self._at: dict[int, _Begun] = {}
        self._bytes = 0

    def feed(self, pieces: Sequence[CallPiece]) -> None:
        """Add what arrived; raises ``upstream_failed`` when it is too much."""
        for piece in pieces:
            call = self._call(piece)
            if piece.id and not call.id:
                call.id = self._kept(piece.id)[:_MAX_NAME]
            if piece.function is None:
                continue
            if piece.function.name:
                call.name = call.name or self._kept(piece.function.name)
            if piece.function.arguments is not None:
                call.arguments.append(self._kept(_text(piece.function.arguments)))

    def finished(self, reason: str) -> ToolCalls | None:
        """All calls, complete, each with an id of its own; None when they were cut off. Raises ``upstream_failed`` for a call without a name."""
        if not self._calls or reason not in {"tool_calls", "function_call", "stop"}:
            return None
        if any(not call.name or len(call.name) > _MAX_NAME for call in self._calls):
            raise _broken("a tool call without a name")
        calls: dict[str, ToolCall] = {}
        for call in self._calls:
            identifier = call.id if call.id and call.id not in calls else f"call_{secrets.token_hex(8)}"
            calls[identifier] = ToolCall(identifier, call.name, "".join(call.arguments) or "{}")
        return ToolCalls(tuple(calls.values()))

    def _call(self, piece: CallPiece) -> _Begun:
        """The call that ``piece`` belongs to. A second id at the same index is a new call: some servers number every call 0."""
        index = piece.index if piece.index is not None else (len(self._calls) if piece.id or not self._calls else len(self._calls) - 1)
        begun = self._at.get(index)
        if begun is None or (piece.id and begun.id and piece.id != begun.id):
            if len(self._calls) >= MAX_CALLS:
                raise _broken(f"more than {MAX_CALLS} tool calls")
            begun = _Begun()
            self._at[index] = begun
            self._calls.append(begun)
        return begun

    def _kept(self, text: str) -> str:
        self._bytes += len(text) + 64  # a piece costs an object, however small it is
        if self._bytes > MAX_BYTES:
            raise _broken("endless tool calls")
        return text


def _text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _broken(what: str) -> ApplianceError:
    return ApplianceError("upstream_failed", f"the model server sent {what}", hint=_HINT)
