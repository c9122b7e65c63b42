"""``search_knowledge`` and ``store_knowledge``."""

from __future__ import annotations

from typing import Any, Final

from appliance.contracts.knowledge.v1.api import KnowledgeBase
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError
from services.orchestrator.mcp import arguments as args
from services.orchestrator.mcp.calls import Call

_DEFAULT_SPACE: Final = "default"


class SearchKnowledge:
    """Entries of the spaces that the caller may read, best first."""

    def __init__(self, knowledge: KnowledgeBase | None) -> None:
        self._knowledge = knowledge

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.SearchKnowledge, call.arguments)
        return {"entries": await present(self._knowledge).search(call.caller, given.query, given.type, int(given.limit), given.spaces)}


class StoreKnowledge:
    """The same key, or the same content, replaces and never doubles."""

    def __init__(self, knowledge: KnowledgeBase | None) -> None:
        self._knowledge = knowledge

    async def __call__(self, call: Call) -> Any:
        given = args.read(args.StoreKnowledge, call.arguments)
        space = given.space or _only_space(call.caller)
        entry = await present(self._knowledge).store(
            call.caller, space, given.type, given.content, given.metadata, tuple(given.related_entries), given.key
        )
        return {"entry": entry}


def present(knowledge: KnowledgeBase | None) -> KnowledgeBase:
    """The knowledge base; ``unavailable`` when this process has none."""
    if knowledge is None:
        raise ApplianceError("unavailable", "this box has no knowledge base", hint="ask the operator to start it, then try again")
    return knowledge


def _only_space(caller: Principal) -> str:
    own = [name for name, role in caller.spaces.items() if role >= SpaceRole.EDITOR]
    return own[0] if len(own) == 1 else _DEFAULT_SPACE
