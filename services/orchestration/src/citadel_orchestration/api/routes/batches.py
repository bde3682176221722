"""Batches of embeddings: runs whose chunks fan out over the workers."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from citadel_common.contracts import Queue
from citadel_common.contracts.embeddings import EncodingFormat
from citadel_common.contracts.runs import BatchResult, EmbeddingBatchRequest, RunAccepted
from citadel_common.errors import InvalidInput
from citadel_orchestration.api.bodies import documented, read_body
from citadel_orchestration.api.errors import MalformedBody
from citadel_orchestration.api.raw_route import RawRoute, services_of
from citadel_orchestration.api.routes.runs import run_id_of

router = APIRouter(route_class=RawRoute, tags=["batches"])
NDJSON = "application/x-ndjson"
_NDJSON_TYPES = frozenset({NDJSON, "application/ndjson", "application/jsonl", "application/jsonlines"})
MOST_LINE_BYTES = 16 * 2**20


@router.post(
    "/v1/embeddings/batches",
    status_code=202,
    responses={202: {"model": RunAccepted}},
    openapi_extra=documented(EmbeddingBatchRequest),
    summary="Embed a batch of requests",
)
async def create_batch(request: Request) -> Response:
    """JSON, or NDJSON with one request per line; for NDJSON `model` and `idempotency_key` are in the query."""
    services = services_of(request)
    await services.backlog.check(Queue.EMBEDDINGS)
    kind = (request.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind in _NDJSON_TYPES:
        lines: AsyncIterator[Any] = _lines(request)
        query = request.query_params
        head: dict[str, Any] = {"model": query.get("model"), "idempotency_key": query.get("idempotency_key")}
        labels: dict[str, str] = {}
    else:
        body = await read_body(request, EmbeddingBatchRequest)
        lines = _each(body.requests)
        head = {"model": body.model, "idempotency_key": body.idempotency_key}
        labels = body.labels
    accepted = await services.batches.accept(lines, labels=labels, **head)
    location = {"location": f"/v1/runs/{accepted.run_id}"}
    return Response(accepted.model_dump_json(), 202, location, media_type="application/json")


@router.get(
    "/v1/runs/{run_id}/results",
    responses={200: {"model": BatchResult, "description": "One line of JSON per request"}},
    openapi_extra={
        "parameters": [
            {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}},
            {"name": "encoding_format", "in": "query", "schema": {"enum": ["float", "base64"]}},
        ]
    },
    summary="Results of a batch, while it still runs",
)
async def stream_results(request: Request) -> Response:
    """NDJSON in the order of the requests; ends when the batch has."""
    services, run_id = services_of(request), run_id_of(request)
    await _check_is_batch(services.runs, run_id)
    asked = request.query_params.get("encoding_format", "float")
    if asked not in ("float", "base64"):
        raise InvalidInput.at("encoding_format", "must be float or base64")
    encoding: EncodingFormat = "float" if asked == "float" else "base64"
    return StreamingResponse(services.batches.results(run_id, encoding), media_type=NDJSON)


async def _check_is_batch(runs: Any, run_id: UUID) -> None:
    view = await runs.show(run_id, outputs=False)
    if view.kind != "batch":
        raise InvalidInput.at("run_id", "is not a batch; its output is at /v1/runs/{run_id}")


async def _each(requests: list[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def _lines(request: Request) -> AsyncIterator[Any]:
    """The body's lines, as they come in."""
    rest = b""
    number = 0
    async for piece in request.stream():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MOST_LINE_BYTES:
            raise MalformedBody(f"line {number + len(lines) + 1} is longer than {MOST_LINE_BYTES} bytes")
        for line in lines:
            number += 1
            if line.strip():
                yield _decoded(line, number)
    if rest.strip():
        yield _decoded(rest, number + 1)


def _decoded(line: bytes, number: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"line {number} is not JSON in UTF-8: {error}") from None
