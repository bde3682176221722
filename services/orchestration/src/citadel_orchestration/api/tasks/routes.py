"""Routes of tasks, and the response to a request that starts one."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_contracts import AnyTaskSpec
from citadel_contracts.api import TaskAccepted, TaskStatus
from citadel_orchestration.api.http.bodies import json_response
from citadel_orchestration.api.http.routing import RawRoute, service_of
from citadel_orchestration.api.tasks.service import TaskService

router = APIRouter(route_class=RawRoute, tags=["tasks"])
_PARAMETER = {"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}}


@router.get(
    "/v1/tasks/{task_id}",
    responses={200: {"model": TaskStatus}},
    openapi_extra={"parameters": [_PARAMETER]},
    summary="A task's state and result",
)
async def show_task(request: Request) -> Response:
    """Show a task: `progress` while it runs, then `result` or `error`."""
    return json_response(await service_of(request, TaskService).status(request.path_params["task_id"]))


async def accept_task(request: Request, spec: AnyTaskSpec, arguments: dict[str, Any]) -> Response:
    """Accept a task and return the 202 response that names it.

    Raises:
        Overloaded: The queue's backlog has reached the limit.
        StoreUnavailable: The task could not be recorded; nothing was accepted.
    """
    task_id = await service_of(request, TaskService).accept(spec, arguments)
    body = TaskAccepted(task_id=task_id, queue=spec.queue.value)
    return json_response(body, 202, location=f"/v1/tasks/{task_id}")
