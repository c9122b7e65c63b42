"""Results of read-only tools, used again while nothing they depend on has changed.

Owns: what a key holds, tags, what may be kept. Does not own: bounds and expiry (``appliance.kit.cache``).

Invariants:
1. The key holds everything that the result may depend on: the tool as it is now, the arguments, every right of the caller, where the turn may look, the
   agent, who asks (for tools that answer per person), and the version of the documents. So a result never crosses to a caller with other rights.
2. A result that was worked out before a write is not kept after it (stamps of the store).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.tools.v1.api import ToolContext
from appliance.identity.principal import Principal
from appliance.kit.cache import CacheStore
from services.agents.plugin import Tool, ToolResult

Version = Callable[[frozenset[str]], str]
_encode: Final = msgspec.json.Encoder(order="sorted").encode


class _Kept(msgspec.Struct, frozen=True):
    content: str
    passages: tuple[Passage, ...]


class ResultCache:
    """Finds and keeps results.

    Args:
        store: where they lie.
        version: of the documents in these spaces; another value = something changed there.
    """

    def __init__(self, store: CacheStore, version: Version) -> None:
        self._store = store
        self._version = version
        self._decoder = msgspec.json.Decoder(_Kept)

    def key(self, tool: Tool, source: str, canonical: bytes, context: ToolContext) -> bytes | None:
        """None when results of this tool are never kept."""
        return key_of(tool, source, canonical, context, self._version) if tool.read_only and tool.cache_seconds > 0 else None

    async def find(self, key: bytes) -> ToolResult | None:
        """The result under a key; a value that cannot be read is none."""
        value = await self._store.get(key)
        if value is None:
            return None
        try:
            kept = self._decoder.decode(value)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        return ToolResult(kept.content, kept.passages)

    async def stamp(self, tool: Tool, source: str) -> bytes:
        """To be taken before the tool runs."""
        return await self._store.stamp(_tags(tool.name, source))

    async def keep(self, key: bytes, tool: Tool, source: str, result: ToolResult, since: bytes) -> None:
        """Keep what a tool brought."""
        value = _encode(_Kept(result.content, result.passages))
        await self._store.put(key, value, ttl_seconds=tool.cache_seconds, tags=_tags(tool.name, source), since=since)

    async def forget(self, tool: Tool, source: str) -> None:
        """A writing tool ran: its own plugin's results and those that it names are stale."""
        await self._store.drop(f"tools:{source}")
        for name in tool.invalidates:
            await self._store.drop(f"tool:{name}")


def key_of(tool: Tool, source: str, canonical: bytes, context: ToolContext, version: Version) -> bytes:
    """See the module's first invariant."""
    principal = context.principal
    spaces = principal.readable(context.spaces)
    parts = [
        source, tool.name, tool.description, hashlib.sha256(tool.schema).hexdigest(), canonical.decode(), rights_of(principal),
        None if context.spaces is None else sorted(context.spaces), context.agent, principal.subject if tool.per_person else "",
        version(spaces) if tool.of_documents else "",
    ]  # fmt: skip
    return b"tool:" + hashlib.sha256(_encode(parts)).digest()


def rights_of(principal: Principal) -> list[object]:
    """Everything about a caller that may change what they are shown, but not who they are."""
    spaces = sorted((name, int(role)) for name, role in principal.spaces.items())
    return [principal.kind, sorted(principal.roles), sorted(principal.groups), spaces]


def _tags(name: str, source: str) -> tuple[str, str]:
    return f"tool:{name}", f"tools:{source}"
