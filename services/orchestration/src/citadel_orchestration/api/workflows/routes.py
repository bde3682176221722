"""Routes of workflows: submission, plan, schema of definitions."""

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_contracts.runs import RunAccepted
from citadel_orchestration.api.http.auth import caller_of
from citadel_orchestration.api.http.bodies import json_response, read_json
from citadel_orchestration.api.http.openapi import DEFINITION, content, errors
from citadel_orchestration.api.http.routing import RawRoute, service_of
from citadel_orchestration.api.runs.service import RunService
from citadel_orchestration.api.workflows.planning import PlanService
from citadel_orchestration.definition import json_schema

router = APIRouter(route_class=RawRoute, tags=["workflows"])
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{DEFINITION}"}}},
    }
}


@router.post(
    "/v1/workflows",
    status_code=202,
    responses={202: {"model": RunAccepted}, **errors(404, 409)},
    openapi_extra=_BODY,
    summary="Submit a workflow",
)
async def submit_workflow(request: Request) -> Response:
    """Record a run, which survives the death of any process; the error for an invalid definition lists all problems."""
    accepted = await service_of(request, RunService).submit(await read_json(request), caller_of(request))
    return json_response(accepted, 202, location=f"/v1/runs/{accepted.run_id}")


@router.post(
    "/v1/workflows/plan",
    responses=errors(404),
    openapi_extra=_BODY,
    summary="Check and plan a workflow without running it",
)
async def plan_workflow(request: Request) -> Response:
    """Return order, graph, expected calls and cache hits."""
    return json_response(orjson.dumps(await service_of(request, PlanService).plan(await read_json(request))))


@router.get(
    "/v1/workflows/schema",
    response_class=Response,
    responses={200: content("application/schema+json", {"type": "object"})},
    summary="JSON Schema of workflow definitions",
)
async def show_schema(request: Request) -> Response:
    """Return the JSON Schema, for editors."""
    schema = json_schema.text(service_of(request, RunService).submissions.types)
    return Response(schema, media_type="application/schema+json")
