"""Reading entries back: one subject's, the newest of many, the one behind an expectation. Owns the direct-get requests; appending is not here.

Direct gets are answered by any replica and may lag. What must be true of the whole cluster asks the stream's leader (``STREAM.MSG.GET``).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Final

import msgspec

from appliance.kit.errors import ApplianceError
from appliance.kit.nats_protocol import Message
from services.orchestrator.jetstream_connection import ApiError, JetStreamConnection
from services.orchestrator.ports import Recorded

_PAGE_ENTRIES: Final = 1000
_LAST_OF_MOST: Final = 500
_READ_SECONDS: Final = 5.0
_TRIES: Final = 8
_PATIENCE_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 0.1
_NO_MESSAGE: Final = 10037
_NONE_STATUS: Final = 404
_END_STATUS: Final = 204


class StreamReader:
    """Reads one stream."""

    def __init__(self, connection: JetStreamConnection, stream: str, *, replicas: int) -> None:
        self._connection = connection
        self._stream = stream
        self._replicas = replicas
        self._direct = f"$JS.API.DIRECT.GET.{stream}"

    async def entries(self, subject: str, after: int) -> list[Recorded]:
        """All on ``subject`` (wildcards may be used) behind sequence ``after``, oldest first; with everything that was acknowledged before the call."""
        for _ in range(_TRIES):
            newest, count = await self._told_by_leader(subject, after)
            found = await self._all_behind(subject, after)
            if (newest <= after or (found and found[-1].sequence >= newest)) and len(found) >= count:
                return found
        raise ApplianceError("unavailable", f"a replica of the event log lags behind: {subject}", hint="try again")

    async def _told_by_leader(self, subject: str, after: int) -> tuple[int, int]:
        """Sequence of the newest entry and how many there are (0: not asked): any server answers reads, one that lags or whose copy has a hole too."""
        if self._replicas == 1:
            return 0, 0
        if after or subject.endswith(">"):
            return await self.newest(subject), 0
        answer = await self._connection.api(f"STREAM.INFO.{self._stream}", {"subjects_filter": subject}, timeout_seconds=_PATIENCE_SECONDS)
        return 0, sum((answer["state"].get("subjects") or {}).values())

    async def _all_behind(self, subject: str, after: int) -> list[Recorded]:
        found: list[Recorded] = []
        while True:
            page, more = await self._page(subject, found[-1].sequence if found else after)
            found += page
            if not more or not page:
                return found

    async def newest(self, subject: str) -> int:
        """Sequence of the newest entry, as the leader knows it; 0 when there is none."""
        message = await self._leader_get({"last_by_subj": subject})
        return message.sequence if message is not None else 0

    async def first_behind(self, subject: str, sequence: int) -> Recorded | None:
        """The first entry of a subject behind a sequence, as the leader knows it."""
        return await self._leader_get({"seq": sequence + 1, "next_by_subj": subject})

    async def last_of(self, subjects: Sequence[str]) -> dict[str, int]:
        """Sequence of the newest entry of each subject that has one; may lag."""
        found: dict[str, int] = {}
        for start in range(0, len(subjects), _LAST_OF_MOST):
            request = {"multi_last": subjects[start : start + _LAST_OF_MOST], "batch": _LAST_OF_MOST}
            for message in await self._ask(request):
                if not message.status:
                    found[message.header_value(b"Nats-Subject").decode()] = int(message.header_value(b"Nats-Sequence"))
        return found

    async def _page(self, subject: str, after: int) -> tuple[list[Recorded], bool]:
        messages = await self._asked_patiently({"seq": after + 1, "next_by_subj": subject, "batch": _PAGE_ENTRIES})
        more = bool(messages) and int(messages[-1].header_value(b"Nats-Num-Pending") or 0) > 0
        return [_recorded(message) for message in messages if not message.status], more

    async def _asked_patiently(self, request: dict[str, object]) -> Sequence[Message]:
        """As ``_ask``, through an election or a reconnect."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._ask(request)
            except ApplianceError:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _ask(self, request: dict[str, object]) -> Sequence[Message]:
        try:
            messages = await self._connection.wire.request_many(self._direct, msgspec.json.encode(request), _READ_SECONDS, _is_last)
        except (ConnectionError, TimeoutError) as exc:
            raise ApplianceError("unavailable", f"the event log cannot be read: {exc or 'no answer'}", hint="try again") from exc
        if messages[-1].status not in {_NONE_STATUS, _END_STATUS}:
            raise ApplianceError("unavailable", f"the event log cannot be read: status {messages[-1].status}", hint="try again")
        return messages

    async def _leader_get(self, request: dict[str, object]) -> Recorded | None:
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{self._stream}", request, timeout_seconds=_PATIENCE_SECONDS)
        except ApiError as error:
            if error.code == _NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        header = base64.b64decode(message.get("hdrs", ""))
        return Recorded(
            message["subject"],
            message["seq"],
            base64.b64decode(message.get("data", "")),
            Message(b"", b"", header, b"").header_value(b"Nats-Msg-Id").decode(),
        )


def _is_last(message: Message) -> bool:
    return message.status != 0


def _recorded(message: Message) -> Recorded:
    return Recorded(
        message.header_value(b"Nats-Subject").decode(),
        int(message.header_value(b"Nats-Sequence")),
        message.payload,
        message.header_value(b"Nats-Msg-Id").decode(),
    )
