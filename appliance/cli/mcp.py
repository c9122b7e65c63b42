"""``appliance mcp``: MCP over stdin and stdout, for clients that are configured with a command (Claude Code, Claude Desktop, others)."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

import httpx
import typer

from appliance.cli.box_client import KEY_VARIABLE, URL_VARIABLE
from appliance.cli.mcp_bridge import Bridge
from appliance.home import Home
from appliance.kit.errors import ApplianceError

_TIMEOUT = httpx.Timeout(3700.0, connect=5.0)  # beyond the longest wait of request_approval


def mcp(
    *,
    url: Annotated[str | None, typer.Option("--url", help="Address of the box; $APPLIANCE_URL, or the box of the home, when absent.")] = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="File with the API key; $APPLIANCE_API_KEY when absent.")] = None,
) -> None:
    """Speak MCP on stdin and stdout and pass it on to the running box.

    Example: `claude mcp add appliance --env APPLIANCE_API_KEY=sk-… -- appliance mcp`
    """
    address, key = url or _address(), _key(key_file)
    asyncio.run(_run(address, key))


async def _run(address: str, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=_TIMEOUT, trust_env=False) as http:
        await Bridge(http).run(sys.stdin.buffer, sys.stdout.buffer)


def _address() -> str:
    if (url := os.environ.get(URL_VARIABLE)) is not None:
        return url
    home = Home.default()
    running = home.running()
    if running is None:
        raise ApplianceError("unavailable", f"no box serves {home.path}", hint="start it with: appliance up --detach (or give --url)")
    return running.url


def _key(key_file: Path | None) -> str:
    """An agent's own key. Never the administrator's from the home: whoever starts an agent does not make it one."""
    try:
        key = os.environ.get(KEY_VARIABLE, "") if key_file is None else key_file.read_text().strip()
    except OSError as error:
        raise ApplianceError("unauthenticated", f"cannot read {key_file}: {error.strerror}", hint="give a file that holds the key") from error
    if not key:
        hint = f"set {KEY_VARIABLE}; make a key with: appliance keys create --role agent:claude_opus --space-role editor"
        raise ApplianceError("unauthenticated", "no API key for the agent", hint=hint)
    return key
