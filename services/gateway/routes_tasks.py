"""Tasks for people: submit, list, read, wait, control. Rights and statuses are the orchestrator's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from appliance.contracts.orchestrator.v1.api import TaskFilter
from appliance.contracts.orchestrator.v1.values import Checkpoint, Task, TaskStatus
from appliance.kit.errors import not_found
from services.gateway.caller import Caller, StillCaller
from services.gateway.graph_svg import graph_svg
from services.gateway.limits import Slots
from services.gateway.orchestration import present
from services.gateway.ports import Dependencies
from services.gateway.schemas_tasks import MOST_WAIT_SECONDS, TASKS_EXAMPLE, Fork, HistoryList, NewPriority, NewTasks, TaskList, Why
from services.gateway.waiting import patiently
from services.gateway.wire import answered, sent, told

TaskId = Annotated[str, Path(min_length=1, max_length=200)]
Name = Annotated[str | None, Query(min_length=1, max_length=200)]
Submission = Annotated[NewTasks, Depends(sent(NewTasks))]
Reason = Annotated[Why, Depends(sent(Why))]
Forking = Annotated[Fork, Depends(sent(Fork))]
Priority = Annotated[NewPriority, Depends(sent(NewPriority))]
Patience = Annotated[float, Query(ge=0, le=MOST_WAIT_SECONDS, description="seconds")]
SVG = "image/svg+xml"


def task_routes(box: Dependencies, waits: Slots) -> APIRouter:
    """``/api/tasks`` for whoever wants something done."""
    router = APIRouter(prefix="/api/tasks", tags=["tasks"])

    @router.post("", summary="Submit tasks, all or none", **told(TaskList, sends=NewTasks, status=201, example=TASKS_EXAMPLE))
    async def submit(asked: Submission, caller: Caller) -> Response:
        """The same `key` again, in the same space, by the same caller, answers with the task that is there."""
        if box.quotas is not None:
            box.quotas.check(caller, tuple({task.space for task in asked.tasks}))
        return answered(TaskList(data=tuple(await present(box.orchestration).tasks.submit(caller, asked.tasks))), 201)

    @router.get("", summary="Tasks that the caller may read, newest first", **told(TaskList))
    async def listed(
        caller: Caller,
        space: Annotated[str | None, Query(min_length=1, max_length=63)] = None,
        status: TaskStatus | None = None,
        type: Name = None,  # noqa: A002 - the name on the wire
        executor: Name = None,
        parent: Name = None,
        before: Name = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
    ) -> Response:
        where = TaskFilter(space=space, status=status, type=type, executor=executor, parent=parent, before=before, limit=limit)
        found = tuple(await present(box.orchestration).tasks.list(caller, where))
        return answered(TaskList(data=found, next=found[-1].id if len(found) == limit else None))

    @router.get("/{task_id}", summary="One task", **told(Task))
    async def task(task_id: TaskId, caller: Caller) -> Response:
        return answered(await present(box.orchestration).tasks.get(caller, task_id))

    @router.patch("/{task_id}", summary="Change the priority", **told(Task, sends=NewPriority, example={"priority": 90}))
    async def change(task_id: TaskId, asked: Priority, caller: Caller) -> Response:
        return answered(await present(box.orchestration).control.set_priority(caller, task_id, asked.priority))

    @router.get("/{task_id}/history", summary="Everything that happened to it, oldest first", **told(HistoryList))
    async def history(task_id: TaskId, caller: Caller) -> Response:
        return answered(HistoryList(data=tuple(await present(box.orchestration).tasks.history(caller, task_id))))

    @router.get("/{task_id}/graph", summary="The task with all it depends on, what depends on it, its children and parents", **told(TaskList))
    async def graph(task_id: TaskId, caller: Caller) -> Response:
        return answered(TaskList(data=tuple(await present(box.orchestration).tasks.graph(caller, task_id))))

    @router.get(
        "/{task_id}/graph.svg",
        summary="The same as a picture",
        response_class=Response,
        responses={200: {"description": "SVG", "content": {SVG: {"schema": {"type": "string"}}}}},
    )
    async def picture(task_id: TaskId, caller: Caller) -> Response:
        drawn = graph_svg(await present(box.orchestration).tasks.graph(caller, task_id), task_id)
        return Response(drawn, media_type=SVG, headers={"cache-control": "no-store"})

    @router.get("/{task_id}/wait", summary="The task once it has ended, or as it is after `timeout` seconds", **told(Task))
    async def wait(request: Request, task_id: TaskId, caller: Caller, again: StillCaller, timeout: Patience = 30.0) -> Response:  # noqa: ASYNC109
        tasks = present(box.orchestration).tasks
        await patiently(tasks.wait(caller, task_id, timeout), request, caller, again, waits, timeout)
        return answered(await tasks.get(await again(), task_id))  # rights as of now

    @router.post("/{task_id}/cancel", summary="End it; what depends on it fails", **told(Task, sends=Why, example={"reason": "asked twice"}))
    async def cancel(task_id: TaskId, asked: Reason, caller: Caller) -> Response:
        return answered(await present(box.orchestration).control.cancel(caller, task_id, asked.reason))

    @router.post("/{task_id}/pause", summary="Take it from its executor and hold it", **told(Task))
    async def pause(task_id: TaskId, caller: Caller) -> Response:
        return answered(await present(box.orchestration).control.pause(caller, task_id))

    @router.post("/{task_id}/resume", summary="Go on after a pause", **told(Task))
    async def resume(task_id: TaskId, caller: Caller) -> Response:
        return answered(await present(box.orchestration).control.resume(caller, task_id))

    @router.post("/{task_id}/retry", summary="Let a failed task try again; finished steps stay finished", **told(Task))
    async def retry(task_id: TaskId, caller: Caller) -> Response:
        return answered(await present(box.orchestration).control.retry(caller, task_id))

    @router.post(
        "/{task_id}/fork", summary="A new task from a checkpoint of this one", **told(Task, sends=Fork, status=201, example={"checkpointId": None})
    )
    async def fork(task_id: TaskId, asked: Forking, caller: Caller) -> Response:
        return answered(await present(box.orchestration).control.fork(caller, task_id, asked.checkpoint_id, asked.input_data), 201)

    @router.get("/{task_id}/checkpoints/{checkpoint_id}", summary="A checkpoint; `latest` is the newest", **told(Checkpoint))
    async def checkpoint(task_id: TaskId, checkpoint_id: TaskId, caller: Caller) -> Response:
        wanted = None if checkpoint_id == "latest" else checkpoint_id
        found = await present(box.orchestration).claims.load_checkpoint(caller, task_id, wanted)
        if found is None:
            raise not_found("checkpoint")
        return answered(found)

    return router
