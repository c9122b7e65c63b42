"""Runs one tool within its limits. Owns time, size and the shape of what comes back; whatever a tool does, a coded error or a bounded text comes out.

A tool that does not end when it is cancelled is left behind after a second: its result goes nowhere, and the turn goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from appliance.contracts.tools.v1.api import ToolContext
from appliance.kit.errors import ApplianceError
from appliance.kit.logging import get_logger
from services.agents.plugin import Tool, ToolResult

_log = get_logger(__name__)
_CANCEL_SECONDS: Final = 1.0
_MOST_PASSAGES: Final = 50
_HARD_FACTOR: Final = 16  # beyond this multiple of its limit a result is refused, not cut


class ToolTimeoutError(Exception):
    """The tool's time, or that of the turn, is over."""


async def execute(tool: Tool, arguments: Mapping[str, Any], context: ToolContext, timeout_seconds: float) -> tuple[ToolResult, str]:
    """The result of a tool, bounded, and a code: ``too_large`` when it was cut or refused.

    Raises:
        ToolTimeoutError: it took too long.
        ApplianceError: what the tool says of itself, or ``tool_failed``.
        asyncio.CancelledError: the caller is gone; the tool was told.
    """
    running = asyncio.ensure_future(tool.call(arguments, context))
    try:
        done, _ = await asyncio.wait({running}, timeout=timeout_seconds)
    except asyncio.CancelledError:
        await _end(running, tool)
        raise
    if not done:
        await _end(running, tool)
        raise ToolTimeoutError
    try:
        result = running.result()
    except ApplianceError:
        raise
    except asyncio.CancelledError as exc:
        raise ApplianceError("tool_failed", f"{tool.name} broke off", hint="try again, or do without") from exc
    except Exception as exc:  # a plugin may raise anything
        _log.warning("tool_failed", tool=tool.name, error=type(exc).__name__, reason=str(exc)[:300])
        raise ApplianceError("tool_failed", f"{tool.name} failed: {type(exc).__name__}", hint="try other arguments, or do without") from exc
    return bounded(tool, result)


def bounded(tool: Tool, result: object) -> tuple[ToolResult, str]:
    """A result as it may go to a model: valid UTF-8, at most ``max_result_bytes``.

    Raises:
        ApplianceError: ``tool_failed`` when it is no result at all.
    """
    if not isinstance(result, ToolResult) or not isinstance(result.content, str):
        raise ApplianceError("tool_failed", f"{tool.name} gave no text", hint="tell the operator: the tool is broken")
    most = tool.max_result_bytes
    if len(result.content) > _HARD_FACTOR * most:
        text = f"The result was refused: {len(result.content):,} characters, at most {most:,} bytes. Ask for less."
        return ToolResult(text), "too_large"
    data = result.content.encode("utf-8", "replace")
    passages = result.passages[:_MOST_PASSAGES]
    if len(data) <= most:
        return ToolResult(data.decode(), passages), ""
    cut = data[:most].decode("utf-8", "ignore")
    return ToolResult(f"{cut}\n(cut: the first {most:,} of {len(data):,} bytes; ask for less)", passages), "too_large"


async def _end(running: asyncio.Future[Any], tool: Tool) -> None:
    running.cancel()
    _, left = await asyncio.wait({running}, timeout=_CANCEL_SECONDS)
    if left:
        _log.error("tool_does_not_end", tool=tool.name)
    running.add_done_callback(_forget)


def _forget(done: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more; its error is looked at so that asyncio does not complain."""
    if not done.cancelled():
        done.exception()
