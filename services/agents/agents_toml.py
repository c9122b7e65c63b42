"""Reads ``$APPLIANCE_HOME/agents.toml`` strictly: agents, MCP servers, approval rules. What it does not know it refuses, naming the key.

Owns: the file format (``schema_version`` 1) and the built-in agents. Does not own: noticing that the file changed (``agents_file``).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from appliance.contracts.router.v1.agents import Agent
from appliance.kit.errors import ApplianceError
from services.agents.policies import ToolRule

FILE_NAME: Final = "agents.toml"
SCHEMA_VERSION: Final = 1
MAX_FILE_BYTES: Final = 1024 * 1024
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_AGENT_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_Text = Annotated[str, Meta(max_length=200)]
_Tool = Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-]{1,64}\*?|\*)$", max_length=65)]
_PROMPT: Final = 20_000

BUILT_IN: Final = (
    Agent(
        "assistant", {"en": "Assistant", "ru": "Помощник"}, retrieval=False,
        tools=("search_documents", "read_document", "list_documents", "calculator", "today", "create_task", "task_status"),
    ),
    Agent("documents", {"en": "Documents", "ru": "Документы"}),  # has searched already; plain API clients get exactly the prompt that they sent
)  # fmt: skip


class _AgentTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title_ru: _Text = ""
    title_en: _Text = ""
    system_prompt: Annotated[str, Meta(max_length=_PROMPT)] = ""
    tools: Annotated[tuple[_Tool, ...], Meta(max_length=200)] = ()
    model: Annotated[str, Meta(max_length=64)] = ""
    spaces: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=63)], ...], Meta(max_length=100)] | None = None
    retrieval: bool = True
    max_rounds: Annotated[int, Meta(ge=1, le=32)] = 8


class ServerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One MCP server; exactly one of ``command`` and ``url``.

    Attributes:
        command: program and arguments, absolute path first; runs without network unless ``network``.
        env: its whole environment, besides PATH, HOME and LANG.
        unconfined: start it also where the kernel has no Landlock, and it can read what the box can.
        readable, writable: paths besides the system's own and its work folder.
        memory_mb: of address space.
        url: streamable HTTP.
        api_key_file: file with a bearer key for ``url``.
        trust_annotations: believe ``readOnlyHint``.
        read_only: tools that change nothing, as the operator knows.
        tools: the only ones that are taken; empty = all, at most 64.
        roles: global roles of which a caller needs one.
        pin: digest of all definitions (``appliance tools check`` prints it); other definitions are refused.
    """

    command: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=4096)], ...], Meta(max_length=64)] = ()
    env: dict[str, str] = {}
    network: bool = False
    unconfined: bool = False
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    memory_mb: Annotated[int, Meta(ge=64, le=1024 * 1024)] = 4096
    url: Annotated[str, Meta(max_length=2048)] = ""
    api_key_file: str = ""
    trust_annotations: bool = False
    read_only: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    timeout_seconds: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    max_result_bytes: Annotated[int, Meta(ge=256, le=1024 * 1024)] = 64 * 1024
    cache_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    pin: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")] = ""


class _RuleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tools: _Tool
    mode: Literal["ALWAYS", "ASK", "DENY"]
    approver: Literal["caller", "admin"] = "caller"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    agents: dict[str, _AgentTable] = {}
    servers: dict[str, ServerTable] = {}
    policies: tuple[_RuleTable, ...] = ()


class AgentsConfig(msgspec.Struct, frozen=True):
    """What the file says, with the built-in agents."""

    agents: dict[str, Agent]
    servers: dict[str, ServerTable]
    rules: tuple[ToolRule, ...]


NOTHING: Final = AgentsConfig({agent.name: agent for agent in BUILT_IN}, {}, ())


def load_agents(file: Path) -> AgentsConfig:
    """The configuration; an absent file is none.

    Raises:
        ApplianceError: ``settings_invalid`` naming file and key.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _refusal(file, f"larger than {MAX_FILE_BYTES:,} bytes")
        raw: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return NOTHING
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as exc:
        raise _refusal(file, str(exc)[:300]) from exc
    try:
        found = msgspec.convert(raw, _File)
    except msgspec.ValidationError as exc:
        raise _refusal(file, str(exc)[:300]) from exc
    if found.schema_version != SCHEMA_VERSION:
        raise _refusal(file, f"schema_version: expected {SCHEMA_VERSION}, found {found.schema_version}")
    agents = dict(NOTHING.agents)
    for name, table in found.agents.items():
        if not _AGENT_NAME.fullmatch(name):
            raise _refusal(file, f"agents.{name[:50]}: a name has a-z 0-9 _ -, at most 40")
        agents[name] = _agent(name, table)
    for name, server in found.servers.items():
        if problem := _server_problem(name, server):
            raise _refusal(file, f"servers.{name[:50]}: {problem}")
    return AgentsConfig(agents, found.servers, tuple(ToolRule(rule.tools, rule.mode, rule.approver) for rule in found.policies))


def _agent(name: str, table: _AgentTable) -> Agent:
    titles = {"ru": table.title_ru or table.title_en or name, "en": table.title_en or table.title_ru or name}
    return Agent(name, titles, table.system_prompt, table.tools, table.model, table.spaces, table.retrieval, table.max_rounds)


def _server_problem(name: str, server: ServerTable) -> str:
    if not _NAME.fullmatch(name):
        return "a name has a-z 0-9 -, at most 40"
    if bool(server.command) == bool(server.url):
        return "give either command or url"
    if server.command and not Path(server.command[0]).is_absolute():
        return "the program of command needs an absolute path"
    if server.url:
        try:
            parts = urlsplit(server.url)
            _ = parts.port
        except ValueError:
            return "url is no address"
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
            return "url must be http(s) with a host and without a password"
        if server.network or server.unconfined or server.env or server.readable or server.writable:
            return "network, unconfined, env, readable and writable are for command"
    elif server.api_key_file:
        return "api_key_file is for url"
    return ""


def _refusal(file: Path, what: str) -> ApplianceError:
    return ApplianceError("settings_invalid", f"{file}: {what}", hint="see docs/agents.md; the configuration of before stays in force")
