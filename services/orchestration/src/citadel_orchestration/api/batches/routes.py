"""Routes of batches of embedding requests."""

from collections.abc import AsyncIterator
from typing import Any, get_args

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.errors import InvalidInput
from citadel_common.validation import bad_fields, invalid_input
from citadel_contracts import Queue
from citadel_contracts.embeddings import EncodingFormat
from citadel_contracts.runs import EmbeddingBatchHead, EmbeddingBatchRequest, RunAccepted
from citadel_orchestration.api.batches.service import BatchService
from citadel_orchestration.api.batches.upload import lines_of
from citadel_orchestration.api.http.auth import caller_of
from citadel_orchestration.api.http.bodies import documented, json_response, read_body
from citadel_orchestration.api.http.body_limit import STREAMED_PATH, is_ndjson
from citadel_orchestration.api.http.followers import FollowerResponse
from citadel_orchestration.api.http.openapi import content, errors
from citadel_orchestration.api.http.query import documented_query, flag_of, labels_of, one_of
from citadel_orchestration.api.http.routing import RawRoute, service_of
from citadel_orchestration.api.runs.routes import offset_of, run_id_of
from citadel_orchestration.api.runs.service import RunService
from citadel_orchestration.api.tasks.publisher import BacklogLimit

router = APIRouter(route_class=RawRoute, tags=["batches"])
NDJSON = "application/x-ndjson"
_LABEL: dict[str, Any] = {"name": "label", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
_BODIES: dict[str, Any] = documented(EmbeddingBatchRequest)
_BODIES["requestBody"]["content"][NDJSON] = {"schema": {"type": "string", "description": "One request per line"}}


@router.post(
    STREAMED_PATH,
    status_code=202,
    responses={202: {"model": RunAccepted}, **errors(404, 409)},
    openapi_extra=_BODIES | {"parameters": [*documented_query("model", "idempotency_key"), _LABEL]},
    summary="Embed a batch of requests",
)
async def create_batch(request: Request) -> Response:
    """Accept JSON, or NDJSON with one request per line and `model`, `idempotency_key` and `label` in the query."""
    await service_of(request, BacklogLimit).check_if_known(Queue.EMBEDDINGS)
    await service_of(request, RunService).admit(caller_of(request))
    if is_ndjson(request.headers.get("content-type", "")):
        head = _head_in_query(request)
        lines: AsyncIterator[Any] = lines_of(request)
    else:
        body = await read_body(request, EmbeddingBatchRequest)
        head, lines = body, _each(body.requests)
    accepted = await service_of(request, BatchService).accept(lines, head, caller_of(request))
    return json_response(accepted, 202, location=f"/v1/runs/{accepted.run_id}")


@router.get(
    "/v1/runs/{run_id}/results",
    response_class=Response,
    responses={200: {"description": "A line for each request: a result as JSON"} | content(NDJSON)},
    openapi_extra={
        "parameters": [
            {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}},
            {"name": "encoding_format", "in": "query", "schema": {"enum": ["float", "base64"]}},
            {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0, "default": 0}},
            {"name": "follow", "in": "query", "schema": {"type": "boolean", "default": True}},
        ]
    },
    summary="Results of a batch, while it still runs",
)
async def stream_results(request: Request) -> Response:
    """Stream NDJSON in the order of the requests until the batch ends; `after=N` leaves out the first N results.

    Nothing is sent while no result comes, as in a paused batch; `follow=false` ends with the results so far.
    """
    run_id = run_id_of(request)
    view = await service_of(request, RunService).show(run_id, outputs=False)
    if view.kind != "batch":
        raise InvalidInput.at("run_id", f"is not a batch; its output is at /v1/runs/{run_id}")
    wanted = one_of(get_args(EncodingFormat), request.query_params.get("encoding_format", "float"), "encoding_format")
    encoding: EncodingFormat = "base64" if wanted == "base64" else "float"
    after = offset_of(request.query_params.get("after", "0"), "after")
    follow = flag_of(request.query_params.get("follow", "true"), "follow")
    results = service_of(request, BatchService).results(run_id, encoding, after=after, follow=follow)
    return FollowerResponse(request, results, media_type=NDJSON)


def _head_in_query(request: Request) -> EmbeddingBatchHead:
    query = request.query_params
    found = {name: query[name] for name in ("model", "idempotency_key") if name in query}
    try:
        return EmbeddingBatchHead(labels=labels_of(request.query_params), **found)
    except ValidationError as error:
        raise invalid_input(bad_fields(error)) from None


async def _each(requests: list[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request
