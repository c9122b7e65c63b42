"""The protocol: the ``mcp`` package's low-level server over a :class:`Desk`. Imported late (``edge``), because ``mcp`` takes about a second.

The low-level server, not ``MCPServer``: names and schemas of the parameters are ours to the letter, and errors keep their code and hint.
Sessions are stateless: every request stands alone, so any replica serves any of them.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any, Final

import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError

from appliance.kit.errors import ApplianceError
from services.orchestrator.mcp.arguments import schema
from services.orchestrator.mcp.calls import Call
from services.orchestrator.mcp.catalogue import CARDS
from services.orchestrator.mcp.desk import Desk
from services.orchestrator.mcp.prompt import INSTRUCTIONS, WORK_PROMPT, work_prompt
from services.orchestrator.mcp.resources import NEWEST, TEMPLATES
from services.orchestrator.mcp.settings import McpSettings

BEARER: Final = "appliance.mcp.bearer"
"""Key of the ASGI scope under which ``edge`` leaves the caller's bearer."""
_JSON: Final = "application/json"
_INVALID_PARAMS_CODES: Final = frozenset({"not_found", "invalid_request"})

Context = ServerRequestContext[Any, Any]
TOOLS: Final = [
    types.Tool(
        name=name,
        description=card.description,
        input_schema=schema(card.parameters),
        annotations=types.ToolAnnotations(read_only_hint=card.reads_only, destructive_hint=False, open_world_hint=False),
    )
    for name, card in CARDS.items()
]


class McpServer:
    """Builds the low-level server; ``session_manager`` serves it over HTTP."""

    def __init__(self, desk: Desk, settings: McpSettings) -> None:
        self._desk = desk
        self._settings = settings
        self.protocol: Server[Any] = Server(
            "appliance",
            version=_version(),
            title="Appliance orchestrator",
            instructions=INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            get_tool_input_schema={name: tool.input_schema for name, tool in zip(CARDS, TOOLS, strict=True)}.get,
        )

    def session_manager(self) -> StreamableHTTPSessionManager:
        """Serves HTTP while its ``run()`` is entered; one per life of the process."""
        return StreamableHTTPSessionManager(
            app=self.protocol,
            stateless=True,
            security_settings=_security(self._settings.allowed_hosts),
            max_request_body_size=self._settings.max_body_bytes,
        )

    async def _list_tools(self, _context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=TOOLS)

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        async def report(seconds: float, message: str) -> None:
            await context.session.report_progress(seconds, None, message)

        try:
            answer = await self._desk.answer(Call(params.name, params.arguments or {}, _bearer(context), report=report))
        except ApplianceError as error:
            return _tool_error(error)
        text, value = _encoded(answer)
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=value)

    async def _list_resources(self, context: Context, _params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        try:
            tasks = await self._desk.answer(Call("resources/list", {}, _bearer(context)))
        except ApplianceError as error:
            raise _protocol_error(error) from error
        newest = types.Resource(uri=NEWEST, name="newest tasks", mime_type=_JSON, description="The newest tasks that you may read")
        listed = [
            types.Resource(
                uri=f"task://{task.id}", name=task.id, title=f"{task.type} · {task.status.value}", description=task.description[:200], mime_type=_JSON
            )
            for task in tasks
        ]
        return types.ListResourcesResult(resources=[newest, *listed])

    async def _list_templates(self, _context: Context, _params: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        templates = [types.ResourceTemplate(uri_template=one.uri, name=one.name, description=one.description, mime_type=_JSON) for one in TEMPLATES]
        return types.ListResourceTemplatesResult(resource_templates=templates)

    async def _read_resource(self, context: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        try:
            answer = await self._desk.answer(Call("resources/read", {"uri": uri}, _bearer(context)))
        except ApplianceError as error:
            raise _protocol_error(error) from error
        return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=_JSON, text=_encoded(answer)[0])])

    async def _list_prompts(self, _context: Context, _params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        about = types.PromptArgument(name="executorId", description="Your name as an executor", required=True)
        return types.ListPromptsResult(
            prompts=[types.Prompt(name=WORK_PROMPT, description="Work on tasks of the box until none is left", arguments=[about])]
        )

    async def _get_prompt(self, _context: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != WORK_PROMPT:
            raise MCPError(types.INVALID_PARAMS, f"there is no prompt {params.name[:100]!r}")
        text = work_prompt((params.arguments or {}).get("executorId", "claude-code"))
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=types.TextContent(text=text))])


def _version() -> str:
    try:
        return metadata.version("appliance")
    except metadata.PackageNotFoundError:
        return ""


def _bearer(context: Context) -> str | None:
    return None if context.request is None else context.request.scope.get(BEARER)


def _encoded(answer: Any) -> tuple[str, Any]:
    data = msgspec.json.encode(answer)
    return data.decode(), msgspec.json.decode(data)


def _tool_error(error: ApplianceError) -> types.CallToolResult:
    """For the model to read and to act on, and for programs: ``{"error": {"code", "message", "hint"}}``."""
    text = f"{error.code}: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content={"error": _error_fields(error)}, is_error=True)


def _protocol_error(error: ApplianceError) -> MCPError:
    code = types.INVALID_PARAMS if error.code in _INVALID_PARAMS_CODES else types.INTERNAL_ERROR
    return MCPError(code, error.message, _error_fields(error))


def _error_fields(error: ApplianceError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "hint": error.hint}


def _security(hosts: tuple[str, ...]) -> TransportSecuritySettings:
    if "*" in hosts:
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return TransportSecuritySettings(
        allowed_hosts=[*hosts, *(f"{host}:*" for host in hosts)], allowed_origins=[*origins, *(f"{origin}:*" for origin in origins)]
    )
