"""The rest of the gateway's parts for the bed: reports, templates and made documents over the real reader, tools behind their gate, quotas."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from appliance.audit.log import AuditLog
from appliance.kit.cache_settings import CacheSettings, memory_store
from appliance.kit.sql import open_database
from services.agents.bootstrap import open_agents
from services.agents.settings import AgentSettings
from services.gateway.quotas import FILE_NAME as QUOTAS
from services.gateway.quotas import Quotas
from services.gateway.tool_desk import ToolDesk
from services.llm.reader_chat_model import ReaderChatModel
from services.router.served_model import ServedModel
from services.sgr.artefacts import OwnedArtefacts
from services.sgr.rendering.office_renderer import OfficeRenderer
from services.sgr.service import SchemaGuidedService
from services.sgr.sqlalchemy_artefacts import SqlAlchemyArtefacts
from services.sgr.tables import SCHEMA
from services.sgr.templates.folder_catalogue import FolderCatalogue
from services.sgr.templates.managed_templates import ManagedTemplates

_QUOTAS = 'schema_version = 1\n[[quota]]\nfor = "each"\nper = "day"\nrequests = 1000000\n'


async def other_parts(home: Path, stack: AsyncExitStack, audit: AuditLog, shelf: Any) -> dict[str, Any]:
    """Values for ``Dependencies``. ``shelf`` is retrieval, catalogue and content in one."""
    engine = await open_database(home / "sgr.db", SCHEMA)
    stack.push_async_callback(engine.dispose)
    store = SqlAlchemyArtefacts(engine, home / "artefacts")
    catalogue = FolderCatalogue(home / "templates")
    guided = SchemaGuidedService(
        {"default": ServedModel("default", ReaderChatModel(None, None))}, shelf, catalogue, OfficeRenderer(catalogue.read), store
    )
    agents = await stack.enter_async_context(
        open_agents(
            home, AgentSettings(), audit, retrieval=shelf, documents=shelf, content=shelf, store=memory_store(CacheSettings()), version=lambda _spaces: "1"
        )
    )
    (home / QUOTAS).write_text(_QUOTAS)
    return {
        "schema_guided": guided,
        "templates": ManagedTemplates(catalogue, audit),
        "artefacts": OwnedArtefacts(store),
        "tools": ToolDesk(agents.toolbox, agents.agents, agents.grants, agents.sources),
        "quotas": Quotas(home / QUOTAS),
    }
