"""One call of a client, and the chain of responsibility that it passes. Pure plumbing: the links are in ``links``, the ends in ``tools_*``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError

_MOST_NAME_CHARACTERS: Final = 200
Report = Callable[[float, str], Awaitable[None]]
"""``(seconds waited, message)``: a progress notification to the client, when it asked for them."""


async def report_nothing(_seconds: float, _message: str) -> None:
    """For callers that take no notifications."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call or a look at a resource.

    Attributes:
        action: ``claim_task`` …, ``resources/read``, ``resources/list``.
        arguments: as they came, not checked yet.
        bearer: credentials of the caller; None when there were none.
        principal: set by the ``Authenticate`` link.
        report: tells the client how a long call goes.
        authenticate: who the bearer belongs to as of now; set by the same link.
    """

    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    bearer: str | None = None
    principal: Principal | None = None
    report: Report = report_nothing
    authenticate: Callable[[], Awaitable[Principal]] | None = None

    @property
    def caller(self) -> Principal:
        """Who calls; raises ``unauthenticated`` before the link that finds out."""
        if self.principal is None:
            raise ApplianceError("unauthenticated", "no credentials were sent", hint="send 'Authorization: Bearer <access token or sk-… key>'")
        return self.principal

    async def still_valid(self) -> None:
        """Raise ``unauthenticated`` once the credentials have ended; for calls that wait."""
        if self.authenticate is not None:
            await self.authenticate()

    @property
    def resource(self) -> str:
        """What the call is about, as the audit log names it."""
        for name, kind in (("uri", ""), ("taskId", "task:"), ("parentTaskId", "task:"), ("executorId", "executor:")):
            if isinstance(value := self.arguments.get(name), str):
                return f"{kind}{value[:_MOST_NAME_CHARACTERS]}".encode("utf-8", "replace").decode()
        return ""


Following = Callable[[Call], Awaitable[Any]]


class Link(Protocol):
    """One link: it may refuse, change or watch the call, and passes it on."""

    async def __call__(self, call: Call, following: Following) -> Any: ...


def chained(links: Sequence[Link], end: Following) -> Following:
    """``links`` in order, then ``end``."""
    for link in reversed(links):
        end = partial(_pass, link, end)
    return end


async def _pass(link: Link, following: Following, call: Call) -> Any:
    return await link(call, following)
