"""Workflows: submitting, planning, the schema of definitions."""

from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_contracts.runs import RunAccepted
from citadel_orchestration.api.http.bodies import read_json
from citadel_orchestration.api.http.raw_route import RawRoute, services_of
from citadel_orchestration.definition import json_schema

router = APIRouter(route_class=RawRoute, tags=["workflows"])
_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


@router.post(
    "/v1/workflows",
    status_code=202,
    responses={202: {"model": RunAccepted}},
    openapi_extra=_BODY,
    summary="Submit a workflow",
)
async def submit_workflow(request: Request) -> Response:
    """Records a run, which ends whatever dies meanwhile; everything wrong with the definition is told at once."""
    raw = await read_json(request)
    accepted = await services_of(request).runs.submit(raw)
    location = {"location": f"/v1/runs/{accepted.run_id}"}
    return Response(accepted.model_dump_json(), 202, location, media_type="application/json")


@router.post("/v1/workflows/plan", openapi_extra=_BODY, summary="Check and plan a workflow without running it")
async def plan_workflow(request: Request) -> Response:
    """Order, graph, expected calls and cache hits."""
    found = await services_of(request).plans.plan(await read_json(request))
    return Response(orjson.dumps(found), media_type="application/json")


@router.get("/v1/workflows/schema", summary="JSON Schema of workflow definitions")
async def show_schema(request: Request) -> Response:
    """For editors."""
    schema = json_schema.text(services_of(request).runs.submissions.types)
    return Response(schema, media_type="application/schema+json")
