"""Tasks: what became of them."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_contracts.api import TaskStatus
from citadel_orchestration.api.http.raw_route import RawRoute, services_of
from citadel_orchestration.api.tasks.task_states import task_status

router = APIRouter(route_class=RawRoute, tags=["tasks"])
_PARAMETER = {"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}}


@router.get(
    "/v1/tasks/{task_id}",
    responses={200: {"model": TaskStatus}},
    openapi_extra={"parameters": [_PARAMETER]},
    summary="A task's state and result",
)
async def show_task(request: Request) -> Response:
    """`progress` while it runs, then `result` or `error`."""
    services = services_of(request)
    task_id, timeout = request.path_params["task_id"], services.settings.stores.timeout
    content = await task_status(
        services.stores.results, task_id, timeout=timeout, is_recorded=services.acceptance.is_recorded
    )
    return Response(content, media_type="application/json")
