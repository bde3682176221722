"""Routes of collections: store points, search. Each request is a run of one step, which it waits for."""

import re
from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.deadline import Deadline
from citadel_common.errors import InvalidDefinition, InvalidInput
from citadel_contracts import Lane
from citadel_contracts.errors import FieldError
from citadel_contracts.runs import SearchRequest, SearchResponse, StoreRequest, StoreResponse
from citadel_orchestration.api.http.auth import caller_of
from citadel_orchestration.api.http.bodies import documented, json_response, read_body
from citadel_orchestration.api.http.openapi import errors
from citadel_orchestration.api.http.routing import RawRoute, service_of
from citadel_orchestration.api.runs.service import RunService
from citadel_orchestration.engine.submission import Origin, Submissions, new_run_id, single_step
from citadel_orchestration.settings import ApiSettings

router = APIRouter(route_class=RawRoute, tags=["collections"])
_PARAMETERS = re.compile(r"^/(?:steps/0|context)/parameters")
_NAME = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}


@router.post(
    "/v1/collections/{name}/points",
    responses={200: {"model": StoreResponse}, **errors(404, 409, 502, 504)},
    openapi_extra=documented(StoreRequest) | _NAME,
    summary="Store points",
)
async def store_points(request: Request) -> Response:
    """Embed texts and store points; create the collection, with the right dimension, if it does not exist."""
    body = await read_body(request, StoreRequest)
    return await _run(request, "vector_upsert", body.model_dump(exclude_none=True))


@router.post(
    "/v1/collections/{name}/search",
    responses={200: {"model": SearchResponse}, **errors(404, 409, 502, 504)},
    openapi_extra=documented(SearchRequest) | _NAME,
    summary="Search a collection",
)
async def search(request: Request) -> Response:
    """Find the points nearest to a text, which is embedded first, or to a vector."""
    body = await read_body(request, SearchRequest)
    return await _run(request, "vector_search", body.model_dump(exclude_none=True))


async def _run(request: Request, type_: str, parameters: dict[str, Any]) -> Response:
    runs, api = service_of(request, RunService), service_of(request, ApiSettings).api
    await runs.admit(caller_of(request))
    submissions = _with_room_for_data(runs.submissions, api.max_body_bytes)
    try:
        definition = submissions.check(single_step(type_, {"collection": request.path_params["name"]} | parameters))
    except InvalidDefinition as error:
        raise _of_body(error) from None
    origin = Origin(kind="task", lane=Lane.INTERACTIVE.value, caller=caller_of(request))
    run = submissions.run_of(definition, run_id=new_run_id(), origin=origin)
    deadline = Deadline.after(api.request_timeout)
    try:
        output = await runs.run_to_end(run, deadline)
    except InvalidInput as error:
        raise (error if error.field is None else error.about(error.field, error.index)) from None
    return json_response(orjson.dumps(output))


def _with_room_for_data(submissions: Submissions, max_bytes: int) -> Submissions:
    """Return submissions limited by the size of a body: points are data, and the limit of definitions is too small."""
    room = 2 * max_bytes  # JSON may become longer when it is encoded again with escapes
    limits = replace(submissions.limits, max_definition_bytes=room, max_context_bytes=room)
    return replace(submissions, limits=limits)


def _of_body(error: InvalidDefinition) -> InvalidInput:
    """Return the same problems, by their place in the body."""
    fields = {_PARAMETERS.sub("", problem.pointer): problem.detail for problem in error.errors}
    found = tuple(FieldError(pointer=pointer, detail=detail) for pointer, detail in fields.items())
    return InvalidInput("; ".join(fields.values()), errors=found)
