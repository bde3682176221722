"""Batches of embeddings: runs whose chunks fan out over the workers."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from citadel_common.errors import InvalidInput, StoreUnavailable
from citadel_common.validation import bad_fields, invalid_input
from citadel_contracts import Queue
from citadel_contracts.embeddings import EncodingFormat
from citadel_contracts.runs import BatchResult, EmbeddingBatchHead, EmbeddingBatchRequest, RunAccepted
from citadel_orchestration.api.batches.upload import lines_of
from citadel_orchestration.api.http.bodies import documented, read_body
from citadel_orchestration.api.http.body_limit import STREAMED_PATH, is_ndjson
from citadel_orchestration.api.http.raw_route import RawRoute, services_of
from citadel_orchestration.api.runs.routes import labels_of, run_id_of, whole_number
from citadel_orchestration.api.services import Services

router = APIRouter(route_class=RawRoute, tags=["batches"])
NDJSON = "application/x-ndjson"
_LABEL: dict[str, Any] = {"name": "label", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}
_BODIES: dict[str, Any] = documented(EmbeddingBatchRequest)
_BODIES["requestBody"]["content"][NDJSON] = {"schema": {"type": "string", "description": "A request per line"}}
_QUERY = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("model", "idempotency_key")]


@router.post(
    STREAMED_PATH,
    status_code=202,
    responses={202: {"model": RunAccepted}},
    openapi_extra=_BODIES | {"parameters": [*_QUERY, _LABEL]},
    summary="Embed a batch of requests",
)
async def create_batch(request: Request) -> Response:
    """JSON, or NDJSON with one request per line; NDJSON has `model`, `idempotency_key` and `label` in the query."""
    services = services_of(request)
    await _check_backlog(services)
    if is_ndjson(request.headers.get("content-type", "")):
        head = _head_in_query(request)
        lines: AsyncIterator[Any] = lines_of(request, patience=services.settings.api.upload_timeout)
    else:
        body = await read_body(request, EmbeddingBatchRequest)
        head, lines = body, _each(body.requests)
    accepted = await services.batches.accept(lines, head)
    location = {"location": f"/v1/runs/{accepted.run_id}"}
    return Response(accepted.model_dump_json(), 202, location, media_type="application/json")


@router.get(
    "/v1/runs/{run_id}/results",
    responses={200: {"model": BatchResult, "description": "One line of JSON per request"}},
    openapi_extra={
        "parameters": [
            {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}},
            {"name": "encoding_format", "in": "query", "schema": {"enum": ["float", "base64"]}},
            {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0, "default": 0}},
        ]
    },
    summary="Results of a batch, while it still runs",
)
async def stream_results(request: Request) -> Response:
    """NDJSON in the order of the requests; ends when the batch has. `after=N` leaves out the first N results."""
    services, run_id = services_of(request), run_id_of(request)
    await _check_is_batch(services.runs, run_id)
    asked = request.query_params.get("encoding_format", "float")
    if asked not in ("float", "base64"):
        raise InvalidInput.at("encoding_format", "must be float or base64")
    encoding: EncodingFormat = "float" if asked == "float" else "base64"
    after = whole_number(request.query_params.get("after", "0"), "after")
    return StreamingResponse(services.batches.results(run_id, encoding, after=after), media_type=NDJSON)


async def _check_backlog(services: Services) -> None:
    """A broker that is down refuses nothing: the record is what a batch is kept in.

    Raises:
        Overloaded: Too much waits already.
    """
    with contextlib.suppress(StoreUnavailable):
        await services.backlog.check(Queue.EMBEDDINGS)


def _head_in_query(request: Request) -> EmbeddingBatchHead:
    query = request.query_params
    found = {name: query[name] for name in ("model", "idempotency_key") if name in query}
    try:
        return EmbeddingBatchHead(labels=labels_of(request), **found)
    except ValidationError as error:
        raise invalid_input(bad_fields(error)) from None


async def _check_is_batch(runs: Any, run_id: UUID) -> None:
    view = await runs.show(run_id, outputs=False)
    if view.kind != "batch":
        raise InvalidInput.at("run_id", f"is not a batch; its output is at /v1/runs/{run_id}")


async def _each(requests: list[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request
