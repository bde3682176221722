"""Accepts tasks: checked and within the backlog's limit, recorded, published, answered with 202."""

from typing import Any

import orjson
from starlette.responses import Response

from citadel_contracts import AnyTaskSpec
from citadel_contracts.api import TaskAccepted
from citadel_orchestration.api.services import Services


async def accepted(services: Services, spec: AnyTaskSpec, arguments: dict[str, Any]) -> Response:
    """The 202 for a task that is now recorded.

    Raises:
        Overloaded: Its queue's backlog is past the limit.
        StoreUnavailable: It could not be recorded; nothing was accepted.
    """
    await services.backlog.check(spec.queue)
    task_id = await services.acceptance.accept(spec, arguments)
    body = TaskAccepted(task_id=task_id, queue=spec.queue.value)
    location = {"location": f"/v1/tasks/{task_id}"}
    return Response(orjson.dumps(body.model_dump()), 202, location, media_type="application/json")
