"""A real knowledge base (SQLite, tantivy, qdrant-edge, ladybug) in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from appliance.contracts.embed.v1.api import Encoder
from appliance.identity.principal import Principal, SpaceRole
from appliance.testing.fakes_encoder import HashingEncoder
from services.knowledge.bootstrap import Knowledge, open_knowledge
from services.knowledge.ports import HasSpace, RecordAudit
from services.knowledge.settings import KnowledgeSettings


def principal(spaces: Mapping[str, SpaceRole], name: str = "anna") -> Principal:
    return Principal(f"user:{name}", "user", frozenset({"member"}), spaces=dict(spaces))


def owner_of(*spaces: str) -> Principal:
    return principal(dict.fromkeys(spaces, SpaceRole.OWNER), "owner")


@asynccontextmanager
async def knowledge_in(
    folder: Path, *, encoder: Encoder | None = None, words_only: bool = False, model: str = "hashing", has_space: HasSpace | None = None,
    record: RecordAudit | None = None, **settings: Any,
) -> AsyncIterator[Knowledge]:  # fmt: skip
    async def no_record(*_: object) -> None: ...

    async def every_space(_: str) -> bool:
        return True

    used = None if words_only else encoder or HashingEncoder(64, ("en", "ru"))
    async with open_knowledge(
        folder=folder, encoder=used, has_space=has_space or every_space, record=record or no_record, settings=KnowledgeSettings(**settings),
        model="" if words_only else model,
    ) as knowledge:  # fmt: skip
        yield knowledge


def task(task_id: str, **fields: Any) -> dict[str, Any]:
    """A task in its wire form."""
    return {
        "id": task_id, "type": "build", "description": "compile the pump controller", "inputData": {"file": "pump.c"}, "priority": 50, "deadline": None,
        "dependencies": [], "assignedExecutor": "exec-1", "executorType": "algorithmic", "status": "completed", "createdAt": 1.0, "updatedAt": 2.0,
        "checkpoints": [], "metadata": {}, "space": "ops", "owner": "user:anna", "result": {"ok": True}, "version": 3,
    } | fields  # fmt: skip
