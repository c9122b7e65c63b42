"""``search_documents``, ``read_document``, ``list_documents``: the caller's documents as tools. Rights are checked behind the contracts, by principal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from appliance.contracts.retrieval.v1.api import Retrieval, SearchQuery
from appliance.contracts.retrieval.v1.documents import Document, DocumentContent, DocumentQuery, Documents
from appliance.contracts.tools.v1.api import ToolContext
from appliance.kit.errors import not_found
from services.agents.plugin import FixedPlugin, Tool, ToolResult, strict_object

_SPAN: Final = 12_000
_CACHE_SECONDS: Final = 300.0
_SPACE: Final = {"type": "string", "minLength": 1, "maxLength": 63, "description": "name of a space; leave out for all"}
_ID: Final = {"type": "string", "minLength": 1, "maxLength": 100, "description": "document id, from search_documents or list_documents"}


def document_plugin(retrieval: Retrieval, documents: Documents, content: DocumentContent) -> FixedPlugin:
    """The tools over these contracts."""
    tools = _DocumentTools(retrieval, documents, content)
    search = {
        "query": {"type": "string", "minLength": 1, "maxLength": 2000, "description": "what to look for, in the words of the documents"},
        "space": _SPACE,
        "top_k": {"type": "integer", "minimum": 1, "maximum": 20, "description": "passages wanted, 5 when left out"},
    }
    read = {
        "document_id": _ID,
        "start": {"type": "integer", "minimum": 0, "maximum": 1_000_000_000, "description": "first character, 0 when left out"},
        "length": {"type": "integer", "minimum": 1, "maximum": _SPAN, "description": f"characters, {_SPAN} when left out"},
    }
    listing = {
        "space": _SPACE,
        "name": {"type": "string", "minLength": 1, "maxLength": 255, "description": "exact file name"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100},
    }
    return FixedPlugin(
        "plugin:documents",
        (
            Tool(
                "search_documents", "Search the documents of this organisation; gives numbered passages to cite.", strict_object(search, ["query"]),
                tools.search, read_only=True, cache_seconds=_CACHE_SECONDS, of_documents=True,
            ),
            Tool(
                "read_document", "Read a part of a document as Markdown text.", strict_object(read, ["document_id"]), tools.read,
                read_only=True, cache_seconds=_CACHE_SECONDS, of_documents=True,
            ),
            Tool(
                "list_documents", "List documents, newest first.", strict_object(listing), tools.list, read_only=True,
                cache_seconds=_CACHE_SECONDS, of_documents=True,
            ),
        ),
    )  # fmt: skip


class _DocumentTools:
    def __init__(self, retrieval: Retrieval, documents: Documents, content: DocumentContent) -> None:
        self._retrieval = retrieval
        self._documents = documents
        self._content = content

    async def search(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Passages; outside of the agent loop their text is in the content."""
        query = SearchQuery(arguments["query"], _spaces(arguments, context), arguments.get("top_k", 5))
        found = await self._retrieval.search(query, context.principal)
        rows = [
            {"document_id": one.document_id, "document": one.document_name, "space": one.space, "page": one.page, "text": one.text}
            for one in found.passages
        ]
        return ToolResult(_json({"passages": rows} if rows else {"passages": [], "note": "nothing was found"}), found.passages)

    async def read(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Characters ``start`` to ``start + length``."""
        start = arguments.get("start", 0)
        found = await self._content.text(arguments["document_id"], context.principal, start, start + arguments.get("length", _SPAN))
        if context.spaces is not None and found.document.space not in context.spaces:
            raise not_found("document")
        return ToolResult(
            _json(
                {
                    "document": found.document.name,
                    "version": found.document.version,
                    "start": found.start,
                    "end": found.end,
                    "length": found.length,
                    "text": found.text,
                }
            )
        )

    async def list(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        """Names and ids, of every space that the turn may look into."""
        limit = arguments.get("limit", 50)
        names = _spaces(arguments, context)
        queries = [None] if names is None else sorted(context.principal.readable(names))
        rows: list[Document] = []
        more = False
        for space in queries:
            page = await self._documents.list(DocumentQuery(space, name=arguments.get("name"), limit=limit), context.principal)
            rows.extend(page.documents)
            more |= page.has_more
        rows.sort(key=lambda one: one.created_at, reverse=True)
        shown = [{"id": one.id, "name": one.name, "space": one.space, "status": one.status, "pages": one.pages} for one in rows[:limit]]
        return ToolResult(_json({"documents": shown, "more": more or len(rows) > limit}))


def _spaces(arguments: Mapping[str, Any], context: ToolContext) -> tuple[str, ...] | None:
    """Where to look: the named space when the turn may look there, else all that it may."""
    named = arguments.get("space")
    if named is None:
        return context.spaces
    if named not in context.principal.readable(context.spaces):
        raise not_found("space")
    return (named,)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
