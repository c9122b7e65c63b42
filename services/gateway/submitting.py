"""Takes the files of one request into a space, one by one; a bad one does not stop the rest. Shared by both upload addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.contracts.retrieval.v1.documents import Documents, Submitted
from appliance.identity.principal import Principal, SpaceRole
from appliance.kit.errors import ApplianceError, not_found
from services.gateway.uploads import ReceivedFile


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one file: exactly one of ``submitted`` and ``error`` is set."""

    name: str
    submitted: Submitted | None
    error: ApplianceError | None


def check_editor(space: str, principal: Principal) -> None:
    """Refuse before the body is read: ``not_found`` for a space that is absent or foreign, ``forbidden`` for readers."""
    if not principal.may(space, SpaceRole.READER):
        raise not_found("space")
    if not principal.may(space, SpaceRole.EDITOR):
        raise ApplianceError("forbidden", "adding documents takes the role editor", hint="ask an owner of the space")


async def submit_files(documents: Documents, files: Sequence[ReceivedFile], space: str, principal: Principal) -> list[Taken]:
    """Submit every file; refusals that concern one file stand beside it, those that concern the box (disk, database) are raised."""
    return [await _submit(documents, file, space, principal) for file in files]


async def _submit(documents: Documents, file: ReceivedFile, space: str, principal: Principal) -> Taken:
    if file.upload is None:
        return Taken(file.name, None, file.error or ApplianceError("invalid_request", "the file did not arrive"))
    try:
        return Taken(file.name, await documents.submit(file.upload, space, principal), None)
    except ApplianceError as error:
        if error.outcome.http >= 500 or error.code in {"not_found", "forbidden"}:
            raise
        return Taken(file.name, None, error)
