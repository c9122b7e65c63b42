"""Spaces and their members. Rights are checked in the directory, where the data is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from appliance.identity.principal import SpaceRole
from appliance.kit.errors import ApplianceError, not_found
from services.gateway.caller import Caller
from services.gateway.ports import Dependencies
from services.gateway.schemas import MemberAnswer, MemberList, NewSpace, Role, SpaceAnswer, SpaceList

SpaceInPath = Annotated[str, Path(min_length=1, max_length=63)]
SubjectInPath = Annotated[str, Path(min_length=1, max_length=200)]


def space_routes(box: Dependencies) -> APIRouter:
    """``/api/spaces``."""
    router = APIRouter(prefix="/api/spaces", tags=["spaces"])

    @router.get("", summary="Spaces of the caller")
    async def spaces(caller: Caller) -> SpaceList:
        found = await box.directory.spaces(caller)
        counts = await box.documents.counts([space.name for space in found])
        return SpaceList(
            data=[
                SpaceAnswer(name=space.name, title=space.title, role=space.role.name.lower(), documents=counts.get(space.name, 0)) for space in found
            ]
        )

    @router.post("", status_code=201, summary="Make a space (administrators)")
    async def create(body: NewSpace, caller: Caller) -> SpaceAnswer:
        space = await box.directory.add_space(caller, body.name, body.title or body.name)
        return SpaceAnswer(name=space.name, title=space.title, role=space.role.name.lower(), documents=0)

    @router.delete("/{space}", status_code=204, summary="Remove a space (administrators); force deletes its documents first")
    async def delete(space: SpaceInPath, caller: Caller, force: Annotated[bool, Query()] = False) -> None:
        if not caller.is_admin:
            raise ApplianceError("forbidden", "only administrators remove spaces") if caller.may(space, SpaceRole.READER) else not_found("space")
        if not caller.may(space, SpaceRole.READER):
            raise not_found("space")
        if not force and (await box.documents.counts([space])).get(space, 0):
            raise ApplianceError("conflict", "the space has documents", hint="delete them first, or add ?force=true")
        await box.directory.remove_space(caller, space)  # first: from here on nothing can come in; the box sweeps what did
        if force:
            await box.documents.clear(space, caller)

    @router.get("/{space}/members", summary="Members (owners)")
    async def members(space: SpaceInPath, caller: Caller) -> MemberList:
        found = await box.directory.members(caller, space)
        return MemberList(data=[MemberAnswer(subject=member.subject, role=member.role.name.lower()) for member in found])

    @router.put("/{space}/members/{subject}", status_code=204, summary="Add or change a member (owners)")
    async def set_member(space: SpaceInPath, subject: SubjectInPath, body: Role, caller: Caller) -> None:
        await box.directory.grant(caller, space, subject, SpaceRole.parse(body.role))

    @router.delete("/{space}/members/{subject}", status_code=204, summary="Remove a member (owners)")
    async def remove_member(space: SpaceInPath, subject: SubjectInPath, caller: Caller) -> None:
        await box.directory.revoke(caller, space, subject)

    return router
