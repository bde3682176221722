"""Runs: listing, showing, following, steering."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from citadel_common.errors import CitadelError, InvalidInput, NotFound
from citadel_contracts.runs import RunEvent, RunList, RunView, StepOutput
from citadel_orchestration.api.http.bodies import read_json
from citadel_orchestration.api.http.raw_route import RawRoute, services_of
from citadel_orchestration.db.views import Filters
from citadel_orchestration.definition.graph import mermaid
from citadel_orchestration.definition.loading import load

router = APIRouter(route_class=RawRoute, tags=["runs"])
_ID = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_ONE: dict[str, Any] = {"parameters": [_ID]}
_FILTERS = ("status", "workflow_id", "kind", "label", "since", "until", "cursor", "limit")
_LIST: dict[str, Any] = {
    "parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _FILTERS]
}
STATES = frozenset({"queued", "running", "paused", "succeeded", "failed", "cancelled", "timed_out"})
KINDS = frozenset({"workflow", "task", "batch"})
MOST = 500
"""Runs in one page."""
_SIGNAL = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@router.get("/v1/runs", responses={200: {"model": RunList}}, openapi_extra=_LIST, summary="List runs")
async def list_runs(request: Request) -> Response:
    """Newest first; `label` is `name:value` and may be repeated."""
    page = await services_of(request).runs.page(_filters(request))
    return _json(page)


@router.get("/v1/runs/{run_id}", responses={200: {"model": RunView}}, openapi_extra=_ONE, summary="Show a run")
async def show_run(request: Request) -> Response:
    """State, steps, output; `?outputs=false` leaves out what may be large."""
    outputs = request.query_params.get("outputs", "true") != "false"
    return _json(await services_of(request).runs.show(run_id_of(request), outputs=outputs))


@router.get(
    "/v1/runs/{run_id}/steps/{step_id}",
    responses={200: {"model": StepOutput}},
    openapi_extra={"parameters": [_ID, _ID | {"name": "step_id", "schema": {"type": "string"}}]},
    summary="Show a step with its output",
)
async def show_step(request: Request) -> Response:
    """The output of a `for_each` is the list of its items'."""
    return _json(await services_of(request).runs.step(run_id_of(request), request.path_params["step_id"]))


@router.get("/v1/runs/{run_id}/graph", openapi_extra=_ONE, summary="A run as a Mermaid graph")
async def show_graph(request: Request) -> Response:
    """Its steps and their states."""
    runs, run_id = services_of(request).runs, run_id_of(request)
    view = await runs.show(run_id, outputs=False)
    definition = load(await runs.definition(run_id), runs.definitions.types)
    text = mermaid(definition, {step.step_id: step.status for step in view.steps})
    return Response(text, media_type="text/vnd.mermaid; charset=utf-8")


@router.get(
    "/v1/runs/{run_id}/events", responses={200: {"model": RunEvent}}, openapi_extra=_ONE, summary="Follow a run"
)
async def follow_run(request: Request) -> Response:
    """Server-sent events until the run ends; `Last-Event-ID` (or `?after=`) resumes without loss or repetition.

    `Accept: application/json` gives the list of what there is so far, at most 1000 at once.
    """
    runs, run_id = services_of(request).runs, run_id_of(request)
    await runs.exists(run_id)
    after = whole_number(request.headers.get("last-event-id") or request.query_params.get("after") or "0", "after")
    if _wants_json(request.headers.get("accept", "")):
        found = await runs.events(run_id, after)
        return Response(orjson.dumps([event.model_dump(mode="json") for event in found]), media_type="application/json")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    stream = _server_sent(runs.follow(run_id, after))
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


@router.post("/v1/runs/{run_id}/cancel", status_code=202, openapi_extra=_ONE, summary="Cancel a run")
async def cancel_run(request: Request) -> Response:
    """Its queued steps never start."""
    return await _steered(request, "cancel")


@router.post("/v1/runs/{run_id}/pause", status_code=202, openapi_extra=_ONE, summary="Pause a run")
async def pause_run(request: Request) -> Response:
    """What runs is finished and recorded; nothing new starts."""
    return await _steered(request, "pause")


@router.post("/v1/runs/{run_id}/resume", status_code=202, openapi_extra=_ONE, summary="Resume a paused run")
async def resume_run(request: Request) -> Response:
    """It goes on where it was."""
    return await _steered(request, "resume")


@router.post("/v1/runs/{run_id}/retry", status_code=202, openapi_extra=_ONE, summary="Retry a run that failed")
async def retry_run(request: Request) -> Response:
    """From the step that failed: what succeeded is not run again. Its deadline begins anew."""
    runs, run_id = services_of(request).runs, run_id_of(request)
    definition = load(await runs.definition(run_id), runs.definitions.types)
    return await _steered(request, "retry", deadline=definition.deadline)


@router.post(
    "/v1/runs/{run_id}/signals/{name}",
    status_code=202,
    openapi_extra={"parameters": [_ID, _ID | {"name": "name", "schema": {"type": "string"}}]},
    summary="Send a signal to a run",
)
async def signal_run(request: Request) -> Response:
    """The body, any JSON, is the output of the `wait` step that takes it; one that comes early is kept."""
    name = request.path_params["name"]
    if not _SIGNAL.fullmatch(name):
        raise InvalidInput.at("name", "must be 1 to 128 letters, digits, and any of _.:-")
    payload = await read_json(request, default={})
    return await _steered(request, "signal", name, payload)


async def _steered(request: Request, action: str, *arguments: Any, **options: Any) -> Response:
    runs, run_id = services_of(request).runs, run_id_of(request)
    await runs.steer(action, run_id, *arguments, **options)
    status = await runs.exists(run_id)
    return Response(orjson.dumps({"run_id": str(run_id), "status": status}), 202, media_type="application/json")


async def _server_sent(events: AsyncIterator[list[RunEvent]]) -> AsyncIterator[bytes]:
    try:
        async for found in events:
            yield b"".join(map(_message, found)) or b": alive\n\n"
        yield b"event: end\ndata: {}\n\n"
    except CitadelError as error:
        yield b"event: error\ndata: " + orjson.dumps(error.data.model_dump()) + b"\n\n"


def _wants_json(accept: str) -> bool:
    """Whether JSON was asked for by name, and events were not."""
    return "application/json" in accept and "text/event-stream" not in accept


def _message(event: RunEvent) -> bytes:
    body = orjson.dumps(event.model_dump(mode="json"))
    return f"id: {event.seq}\nevent: {event.type}\ndata: ".encode() + body + b"\n\n"


def run_id_of(request: Request) -> UUID:
    """The run that the path names.

    Raises:
        NotFound: It cannot be one.
    """
    text = request.path_params["run_id"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"there is no run {text!r}") from None


def _filters(request: Request) -> Filters:
    query = request.query_params
    for name in query:
        if name not in _FILTERS:
            raise InvalidInput.at(name, f"is no filter; there are {', '.join(_FILTERS)}")
        if any("\0" in value for value in query.getlist(name)):
            raise InvalidInput.at(name, "must not hold a NUL character")
    limit = whole_number(query.get("limit", "50"), "limit")
    if not 1 <= limit <= MOST:
        raise InvalidInput.at("limit", f"must be from 1 to {MOST}")
    return Filters(
        status=_one_of(STATES, query.get("status"), "status"),
        workflow_id=query.get("workflow_id"),
        kind=_one_of(KINDS, query.get("kind"), "kind"),
        labels=labels_of(request) or None,
        since=_time(query.get("since"), "since"),
        until=_time(query.get("until"), "until"),
        cursor=query.get("cursor"),
        limit=limit,
    )


def _one_of(known: frozenset[str], value: str | None, field: str) -> str | None:
    if value is not None and value not in known:
        raise InvalidInput.at(field, f"must be one of {', '.join(sorted(known))}")
    return value


def labels_of(request: Request) -> dict[str, str]:
    """The labels in the query: `label=name:value`, any number of times.

    Raises:
        InvalidInput: One is no label.
    """
    return dict(map(_label, request.query_params.getlist("label")))


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name:
        raise InvalidInput.at("label", "must be name:value")
    return name, value


def _time(text: str | None, field: str) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput.at(field, "must be a time in ISO 8601") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def whole_number(text: str, field: str) -> int:
    """The number that a parameter holds.

    Raises:
        InvalidInput: It holds none.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput.at(field, "must be a whole number")
    return int(text)


def _json(reply: Any) -> Response:
    return Response(reply.model_dump_json(), media_type="application/json")
