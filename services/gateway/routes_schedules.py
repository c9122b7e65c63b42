"""Background agents: schedules of tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from services.gateway.caller import Caller
from services.gateway.orchestration import present
from services.gateway.ports import Dependencies
from services.gateway.routes_approvals import SpaceInPath
from services.gateway.schemas_tasks import SCHEDULE_EXAMPLE, NewSchedule, Rows
from services.gateway.wire import answered, sent, told

ScheduleName = Annotated[str, Path(min_length=1, max_length=200)]
Scheduling = Annotated[NewSchedule, Depends(sent(NewSchedule))]


def schedule_routes(box: Dependencies) -> APIRouter:
    """``/api/schedules``."""
    router = APIRouter(prefix="/api/schedules", tags=["schedules"])

    @router.get("", summary="Schedules: trigger, task, when it fired last and fires next", **told(Rows))
    async def listed(caller: Caller, space: Annotated[str | None, Query(min_length=1, max_length=63)] = None) -> Response:
        return answered(Rows(data=tuple(await present(box.orchestration).schedules.list(caller, space))))

    @router.put(
        "/{name}",
        summary="Make or change a schedule; it lives in the space of its task",
        openapi_extra=told(sends=NewSchedule, example=SCHEDULE_EXAMPLE)["openapi_extra"],
        response_class=Response,
    )
    async def put(name: ScheduleName, asked: Scheduling, caller: Caller) -> Response:
        return answered(await present(box.orchestration).schedules.put(caller, name, asked.trigger, asked.spec))

    @router.delete("/{space}/{name}", summary="No more", **told(status=204))
    async def delete(space: SpaceInPath, name: ScheduleName, caller: Caller) -> Response:
        await present(box.orchestration).schedules.delete(caller, space, name)
        return Response(status_code=204)

    return router
