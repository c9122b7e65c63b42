"""One schema-guided answer as the routes run it: the thread before, the account and the turn after. Does not own the wire format."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from appliance.contracts.llm.v1.api import Message
from appliance.contracts.sgr.v1.api import FormatRequest, FormatResult, FormatStep, SchemaGuided
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError
from services.gateway.authority import Again, AuthorityWatch
from services.gateway.conversation import estimated_usage
from services.gateway.ports import Dependencies
from services.gateway.usage import Billed, UsageAccounts, counted_space

_TITLE_CHARACTERS: Final = 80
_FILES: Final = ("docx", "pptx")
_MARKS: Final = re.compile(r"[\[\]()\\]")


@dataclass(frozen=True, slots=True)
class Finished:
    """The result, and the thread that has it now ("" = none)."""

    result: FormatResult
    thread_id: str


class Reporting:
    """Runs requests.

    Args:
        box: threads, and who answers.
        guided: ``sgr.format``.
        accounts: tokens of callers.
        seconds: longest time of one request.
    """

    def __init__(self, box: Dependencies, guided: SchemaGuided, accounts: UsageAccounts, seconds: float) -> None:
        self._box = box
        self._guided = guided
        self._accounts = accounts
        self._seconds = seconds

    async def run(self, request: FormatRequest, caller: Principal, again: Again) -> AsyncGenerator[FormatStep | Finished, None]:
        """Steps, then exactly one end. A thread that was made for nothing is gone when this raises; ``quota_exceeded`` before anything is spent."""
        if self._box.quotas is not None:
            self._box.quotas.check(caller, request.spaces)
        thread_id, made = await self._thread(request, caller)
        request = replace(request, thread_id=thread_id)
        finished = generating = False
        try:
            async with aclosing(self._events(request, caller, again)) as events:
                async for event in events:
                    if isinstance(event, FormatResult):
                        billed = Billed(caller.subject, caller.account, event.model or request.model, counted_space(request.spaces), thread_id)
                        self._accounts.count(caller.subject, event.usage, billed)
                        if thread_id:
                            cited = [one for one in event.citations if one.space]  # a draft of the caller's own is in no space
                            await self._box.threads.add_turn(caller.subject, thread_id, request.prompt, _said(event), cited, request.model)
                        finished = True
                        yield Finished(event, thread_id)
                    else:
                        generating = generating or event.name == "generate"
                        yield event
        finally:
            if generating and not finished:  # nobody says what the rounds cost; that there was a request is known
                billed = Billed(caller.subject, caller.account, request.model, counted_space(request.spaces), thread_id)
                asked = [Message("user", request.prompt), Message("user", request.draft)]
                self._accounts.count(caller.subject, estimated_usage(asked, 0), billed)
            if made and not finished:
                await asyncio.shield(self._box.threads.delete(caller.subject, thread_id))

    async def _thread(self, request: FormatRequest, caller: Principal) -> tuple[str, bool]:
        """Id, and whether it was made now. Raises ``not_found`` for a foreign one."""
        if request.thread_id:
            await self._box.threads.get(caller.subject, request.thread_id)
            return request.thread_id, False
        if request.output not in _FILES:
            return "", False
        title = " ".join(request.prompt.split())[:_TITLE_CHARACTERS]
        return (await self._box.threads.create(caller.subject, title, request.spaces)).id, True

    async def _events(self, request: FormatRequest, caller: Principal, again: Again) -> AsyncGenerator[FormatStep | FormatResult, None]:
        with AuthorityWatch(again) as watch:
            try:
                async with asyncio.timeout(self._seconds), aclosing(self._guided.format(request, caller)) as events:
                    async for event in events:
                        yield event
            except asyncio.CancelledError:
                if (error := watch.lost()) is not None:
                    raise error from None
                raise
            except TimeoutError as exc:
                hint = "ask for less, or allow more time: APPLIANCE_GATEWAY_MAX_TURN_SECONDS"
                raise ApplianceError("upstream_timeout", "the answer took too long", hint=hint) from exc


def _said(result: FormatResult) -> str:
    """What the thread keeps: the link to the file, or the text."""
    if result.artefact is None:
        return result.text
    return f"[{_MARKS.sub(' ', result.artefact.name)}](/api/artefacts/{result.artefact.id}/content)"
