"""An MCP server over streamable HTTP: the real server of the ``mcp`` package on loopback."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

from appliance.kit.egress import GUARD
from services.agents.agents_toml import ServerTable
from services.agents.mcp_plugin import McpPlugin, Pauses
from services.agents.toolbox import BoxToolbox
from tests.unit.agents.tool_bed import ANNA, CHECKER, RememberingAudit, call


async def test_tools_over_http_work_and_a_server_that_goes_takes_them_along(tmp_path):
    server = MCPServer("archive")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def find(text: str) -> str:
        """Find in the archive."""
        return f"found {text}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def flood() -> str:
        """Too much."""
        return "x" * 12_000_000

    (tmp_path / "key").write_text("k-1\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error", ws="none", timeout_graceful_shutdown=1))
        serving = asyncio.create_task(app.serve(sockets=[listening]))
        plugin = McpPlugin(
            "archive",
            ServerTable(url=f"http://127.0.0.1:{port}/mcp", api_key_file=str(tmp_path / "key"), trust_annotations=True),
            tmp_path,
            Pauses(0.01, 0.05),
        )
        running = asyncio.create_task(plugin.run())
        box = BoxToolbox(lambda: (plugin,), lambda agent, tool: True, lambda: (), RememberingAudit(), checker=CHECKER)
        async with asyncio.timeout(60):
            while not plugin.tools():
                await asyncio.sleep(0.01)
        assert f"127.0.0.1:{port}" in GUARD.destinations
        (outcome,) = await box.run([call("archive__find", '{"text":"a"}')], ANNA)
        assert (outcome.code, outcome.content, outcome.source) == ("", "found a", "mcp:archive")
        (outcome,) = await box.run([call("archive__flood")], ANNA)
        assert outcome.code == "tool_failed" and len(outcome.content) < 1000
        app.should_exit = True
        await asyncio.wait({serving}, timeout=30)
    async with asyncio.timeout(60):
        while (await box.run([call("archive__find", '{"text":"a"}')], ANNA))[0].code not in {"tool_failed", "not_found"}:
            await asyncio.sleep(0.01)
        while plugin.tools():
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert f"127.0.0.1:{port}" not in GUARD.destinations
