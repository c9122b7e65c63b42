"""What an answer depends on, as one digest. Whatever is not in here must not change an answer.

The rights of the caller come first: two callers share an answer only when they may read the same spaces with the same roles, as the same kind of
caller; and when the turn has a thread's history or tools of the box, only when they are the same account.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from appliance.contracts.llm.v1.api import Message, ToolSpec
from appliance.contracts.retrieval.v1.api import Passage
from appliance.contracts.router.v1.api import ChatTurn
from appliance.identity.principal import Principal
from services.router.answer_record import VERSION

_TRANSPORT: Final = frozenset(
    {"stream", "stream_options", "user", "metadata", "store"}
)  # options that change how an answer travels, not what it says
_encoder: Final = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn as it goes to the model, after routing and the input guard.

    Attributes:
        turn: ``messages`` as the model sees them, without the agent's system prompt; ``model`` may still be an alias such as ``default``.
        principal: whose rights count.
        model: alias that answers.
        model_version: changes with what the alias means (digest of the snapshot, endpoint and name of the model there).
        agent: who answers.
        system_prompt: of the agent.
        tools: of the box, as offered to this caller. With any, the answer is kept for this account alone.
        policy: version of the guard's policies.
        deterministic: the model says the same every time (the reader).
    """

    turn: ChatTurn
    principal: Principal
    model: str
    model_version: str
    agent: str = ""
    system_prompt: str = ""
    tools: Sequence[ToolSpec] = ()
    policy: str = ""
    deterministic: bool = False

    @property
    def is_private(self) -> bool:
        """Whether the answer may only come back to the same account."""
        return bool(self.tools) or bool(self.turn.thread_id) or bool(self.turn.task_id)

    @property
    def is_repeatable(self) -> bool:
        """See :func:`is_repeatable`."""
        return is_repeatable(self.turn, deterministic=self.deterministic)


def is_repeatable(turn: ChatTurn, *, deterministic: bool) -> bool:
    """Whether asking again would bring the same answer: greedy decoding or a model that always says the same, and one answer asked for."""
    options = turn.options
    return options.get("n", 1) in {1, None} and (deterministic or _is_zero(options.get("temperature")))


def scope_digest(asked: Asked) -> bytes:
    """32 bytes of everything but the last message: rights, model, agent, policy, history, options, tools, schema."""
    turn, principal = asked.turn, asked.principal
    readable = principal.readable(turn.spaces)
    parts = (
        VERSION,
        (principal.kind, sorted(principal.roles), sorted(principal.groups), [(name, int(principal.spaces[name])) for name in sorted(readable)]),
        principal.account if asked.is_private else None,
        (asked.model, asked.model_version, asked.agent, asked.system_prompt, asked.policy),
        (None if turn.spaces is None else sorted(turn.spaces), turn.top_k, None if turn.document_ids is None else sorted(turn.document_ids)),
        [_message(message) for message in turn.messages[:-1]],
        {name: value for name, value in turn.options.items() if name not in _TRANSPORT},
        ([_tool(tool) for tool in asked.tools], [_tool(tool) for tool in turn.tools], turn.tool_choice),
        None if turn.answer_schema is None else (turn.answer_schema.name, turn.answer_schema.schema, turn.answer_schema.strict),
    )
    return _digest(b"scope", _encoder.encode(parts))


def question_digest(scope: bytes, asked: Asked) -> bytes:
    """32 bytes of the scope with the last message."""
    return _digest(b"question", scope, _encoder.encode(_message(asked.turn.messages[-1])))


def library_key(question: bytes, revision: str) -> bytes:
    """Key of the answer while the library stands at ``revision``: found without a search."""
    return _digest(b"library", question, revision.encode())


def passages_key(question: bytes, passages: Sequence[Passage], language: str, *, grounded: bool) -> bytes:
    """Key of the answer to exactly these passages: found after a search, by every replica, whatever else the library has become."""
    found = [
        (one.document_id, one.document_name, one.version, one.space, one.page, one.heading_path, one.start, one.end, one.text) for one in passages
    ]
    return _digest(b"passages", question, _encoder.encode((grounded, language, found)))


def _message(message: Message) -> tuple[object, ...]:
    return message.role, message.content, [(call.id, call.name, call.arguments) for call in message.tool_calls], message.tool_call_id


def _tool(tool: ToolSpec) -> tuple[object, ...]:
    parameters: Mapping[str, object] = tool.parameters
    return tool.name, tool.description, dict(parameters), tool.strict


def _is_zero(temperature: object) -> bool:
    return isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0


def _digest(name: bytes, *parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=32, person=name)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
