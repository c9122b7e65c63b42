"""The registry of executors."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from appliance.contracts.orchestrator.v1.values import Executor, ExecutorStatus
from services.gateway.caller import Caller
from services.gateway.error_bodies import invalid
from services.gateway.orchestration import present
from services.gateway.ports import Dependencies
from services.gateway.routes_work import ExecutorId
from services.gateway.schemas_tasks import REGISTRATION_EXAMPLE, ExecutorList, NewStatus, Registration
from services.gateway.wire import answered, sent, told

Registering = Annotated[Registration, Depends(sent(Registration))]
Standing = Annotated[NewStatus, Depends(sent(NewStatus))]


def executor_routes(box: Dependencies) -> APIRouter:
    """``/api/executors``."""
    router = APIRouter(prefix="/api/executors", tags=["executors"])

    @router.get("", summary="Executors with their load and what the box has seen of them", **told(ExecutorList))
    async def listed(caller: Caller) -> Response:
        return answered(ExecutorList(data=tuple(await present(box.orchestration).executors.list(caller))))

    @router.post("", summary="Register, or come online again", **told(Executor, sends=Registration, status=201, example=REGISTRATION_EXAMPLE))
    async def register(asked: Registering, caller: Caller) -> Response:
        """A new registration ends the claims of an earlier run of the same executor."""
        made = await present(box.orchestration).executors.register(
            caller,
            asked.id,
            asked.type,
            asked.capabilities,
            name=asked.name,
            version=asked.version,
            endpoint=asked.endpoint,
            max_load=asked.max_load,
        )
        return answered(made, 201)

    @router.post("/{executor_id}/heartbeat", summary="Renew the leases of everything it holds", **told(Executor))
    async def heartbeat(executor_id: ExecutorId, caller: Caller) -> Response:
        return answered(await present(box.orchestration).executors.heartbeat(caller, executor_id))

    @router.patch(
        "/{executor_id}", summary="online, draining or disabled (operators)", **told(Executor, sends=NewStatus, example={"status": "draining"})
    )
    async def set_status(executor_id: ExecutorId, asked: Standing, caller: Caller) -> Response:
        if asked.status is ExecutorStatus.LOST:
            raise invalid("only the box calls an executor lost", "status", hint="use online, draining or disabled")
        return answered(await present(box.orchestration).executors.set_status(caller, executor_id, asked.status))

    @router.delete("/{executor_id}", summary="It leaves; what it held is free again", **told(status=204))
    async def unregister(executor_id: ExecutorId, caller: Caller) -> Response:
        await present(box.orchestration).executors.unregister(caller, executor_id)
        return Response(status_code=204)

    return router
