"""Approvals of writing tools in chats: which call waits for a person, who may say yes, and that a yes is used once.

The orchestrator's approvals are bound to tasks and their claims; a chat has neither, so these live here. A request is one caller, one agent, one tool and
exactly these arguments (by digest); a change needs a new one. They stand in one file that is replaced whole and synced before anything is acknowledged.

Invariants:
1. ``take`` returns True at most once per approval, and only after that is on the disk: an effect is never done twice, also across a restart.
2. Only a person who is signed in decides, never a key, not even an administrator's: the caller or an administrator; where ``approver`` is ``admin``, only
   an administrator, and not about their own call.
3. At most :data:`MOST_WAITING` requests wait per caller; each expires.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from appliance.contracts.tools.v1.approvals import Approver, Decision, ToolApproval
from appliance.identity.principal import Principal
from appliance.kit.errors import ApplianceError, not_found

MOST_WAITING: Final = 50
MOST_KEPT: Final = 2000
EXPIRES_SECONDS: Final = 3600.0
_FILE_BYTES: Final = 64 * 1024 * 1024
_SHOWN_CHARACTERS: Final = 4000


class Grants:
    """Implements ``ToolApprovals``. Use on one event loop.

    Args:
        file: where they stand.
        clock: Unix seconds.

    Raises:
        ApplianceError: ``home_invalid`` when the file is there and cannot be read.
    """

    def __init__(self, file: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._writing = asyncio.Lock()
        self._kept = {one.id: one for one in _read(file)}

    async def take(self, principal: Principal, agent: str, tool: str, digest: str) -> bool:
        """Whether a person approved this call and it has not been done yet; from now on it counts as done."""
        async with self._writing:
            for one in self._kept.values():
                if self._is_of(one, principal, agent, tool, digest) and one.status == "approved":
                    await self._store(msgspec.structs.replace(one, status="used"))
                    return True
        return False

    async def ask(
        self, principal: Principal, agent: str, tool: str, digest: str, arguments: str, *, approver: Approver, thread_id: str
    ) -> ToolApproval:
        """The request for this call: the standing one (also when it was rejected), or a new one.

        Raises:
            ApplianceError: ``overloaded`` when too many of this caller wait.
        """
        async with self._writing:
            standing = [one for one in self._kept.values() if self._is_of(one, principal, agent, tool, digest) and one.status != "used"]
            if standing:
                return standing[-1]
            waiting = sum(one.account == principal.account and one.status == "pending" and self._stands(one) for one in self._kept.values())
            if waiting >= MOST_WAITING:
                raise ApplianceError("overloaded", "too many calls wait for approval", hint="decide about those that wait")
            now = self._clock()
            asked = ToolApproval(
                id=f"ta_{secrets.token_hex(12)}", account=principal.account, subject=principal.subject, tool=tool, digest=digest,
                arguments=_shown(arguments), approver=approver, requested_at=now, expires_at=now + EXPIRES_SECONDS, thread_id=thread_id,
                agent=agent,
            )  # fmt: skip
            await self._store(asked)
            return asked

    async def decide(self, principal: Principal, approval_id: str, decision: Decision) -> ToolApproval:
        """See the contract."""
        async with self._writing:
            one = self._kept.get(approval_id)
            if one is None or not self._may_see(principal, one):
                raise not_found("approval")
            if not _may_decide(principal, one):
                raise ApplianceError("forbidden", "this call is not yours to decide", hint="ask an administrator; keys and agents do not approve")
            wanted = "approved" if decision == "approve" else "rejected"
            if one.status == wanted:
                return one
            if one.status != "pending" or not self._stands(one):
                raise ApplianceError("conflict", f"this request is {'expired' if one.status == 'pending' else one.status}", hint="ask again")
            decided = msgspec.structs.replace(one, status=wanted, decided_by=principal.subject)
            await self._store(decided)
            return decided

    def list(self, principal: Principal, *, pending_only: bool = True) -> Sequence[ToolApproval]:
        """See the contract."""
        return [
            one
            for one in self._kept.values()
            if self._may_see(principal, one) and self._stands(one) and (one.status == "pending" or not pending_only)
        ]

    def _is_of(self, one: ToolApproval, principal: Principal, agent: str, tool: str, digest: str) -> bool:
        of = (one.account, one.subject, one.agent, one.tool, one.digest)
        return of == (principal.account, principal.subject, agent, tool, digest) and self._stands(one)

    def _stands(self, one: ToolApproval) -> bool:
        return self._clock() < one.expires_at

    @staticmethod
    def _may_see(principal: Principal, one: ToolApproval) -> bool:
        return principal.is_admin or principal.account == one.account

    async def _store(self, changed: ToolApproval) -> None:
        """Durable when it returns; nothing is changed when it raises. Shielded: what is being written is also remembered."""
        kept = {one.id: one for one in self._kept.values() if self._stands(one)}
        kept[changed.id] = changed
        while len(kept) > MOST_KEPT:
            del kept[next(iter(kept))]
        writing = asyncio.ensure_future(asyncio.to_thread(_write, self._file, msgspec.json.encode(list(kept.values()))))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})
            if not writing.cancelled() and writing.exception() is None:
                self._kept = kept
            raise
        self._kept = kept


def _may_decide(principal: Principal, one: ToolApproval) -> bool:
    if principal.kind != "user":
        return False
    if one.approver == "admin":
        return principal.is_admin and principal.account != one.account
    return principal.is_admin or principal.account == one.account


def _shown(arguments: str) -> str:
    """What people decide about; that there is more than they see must be seen."""
    hidden = len(arguments) - _SHOWN_CHARACTERS
    return arguments if hidden <= 0 else f"{arguments[:_SHOWN_CHARACTERS]}… ({hidden:,} more characters are not shown)"


def _read(file: Path) -> list[ToolApproval]:
    try:
        if file.stat().st_size > _FILE_BYTES:
            raise ApplianceError("home_invalid", f"{file} is too large", hint="move it away; open approvals are asked for again")
        return msgspec.json.decode(file.read_bytes(), type=list[ToolApproval])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as exc:
        raise ApplianceError("home_invalid", f"{file} cannot be read", hint="move it away; open approvals are asked for again") from exc


def _write(file: Path, data: bytes) -> None:
    temporary = file.with_suffix(".tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        raise ApplianceError("disk_full", f"cannot write {file.name}: {exc.strerror}", hint="free space on the disk of the appliance home") from exc
