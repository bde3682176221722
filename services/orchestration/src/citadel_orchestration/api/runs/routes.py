"""Routes of runs."""

import re
from collections.abc import AsyncIterator
from typing import Any, get_args
from uuid import UUID

import orjson
from fastapi import APIRouter
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from citadel_common.errors import CitadelError, InvalidInput, NotFound
from citadel_contracts.runs import RunCommanded, RunEvent, RunList, RunStatus, RunView, StepOutput
from citadel_orchestration.api.http.auth import caller_of
from citadel_orchestration.api.http.bodies import json_response, read_json
from citadel_orchestration.api.http.followers import FollowerResponse
from citadel_orchestration.api.http.openapi import content, errors
from citadel_orchestration.api.http.query import (
    check_names,
    documented_query,
    labels_of,
    number_of,
    one_of,
    time_of,
)
from citadel_orchestration.api.http.routing import RawRoute, service_of
from citadel_orchestration.api.http.trace import trace_id_of
from citadel_orchestration.api.runs.outputs import RunOutputs, StreamedJson
from citadel_orchestration.api.runs.service import Command, RunService
from citadel_orchestration.db.views import Filters
from citadel_orchestration.definition.graph import mermaid
from citadel_orchestration.engine.run_commands import RunCommands

router = APIRouter(route_class=RawRoute, tags=["runs"])
_ID = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_SIGNALLED = {"content": {"application/json": {"schema": {}}}, "description": "Any JSON; `{}` if it is left out"}
_COMMANDED = {202: {"model": RunCommanded}} | errors(409)
_ONE: dict[str, Any] = {"parameters": [_ID]}
_FILTERS = ("status", "workflow_id", "kind", "label", "since", "until", "cursor", "limit")
KINDS = ("workflow", "task", "batch")
MAX_RUNS = 500
"""Runs in one page."""
_SIGNAL = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@router.get(
    "/v1/runs",
    responses={200: {"model": RunList}},
    openapi_extra={"parameters": documented_query(*_FILTERS)},
    summary="List runs",
)
async def list_runs(request: Request) -> Response:
    """List runs, newest first; `label` is `name:value` and may be repeated."""
    return json_response(await service_of(request, RunService).page(_filters(request.query_params)))


@router.get("/v1/runs/{run_id}", responses={200: {"model": RunView}}, openapi_extra=_ONE, summary="Show a run")
async def show_run(request: Request) -> Response:
    """Show status, steps and output; `?outputs=false` leaves out the output and the final context.

    One of more than `CITADEL_API__MAX_INLINE_BYTES` is left out: `output_url` or `final_context_url` leads to it.
    """
    outputs = request.query_params.get("outputs", "true") != "false"
    return json_response(await service_of(request, RunService).show(run_id_of(request), outputs=outputs))


@router.get(
    "/v1/runs/{run_id}/steps/{step_id}",
    responses={200: {"model": StepOutput}},
    openapi_extra={"parameters": [_ID, _ID | {"name": "step_id", "schema": {"type": "string"}}]},
    summary="Show a step with its output",
)
async def show_step(request: Request) -> Response:
    """Show one step; the output of a `for_each` is the list of its items' outputs."""
    step_id = request.path_params["step_id"]
    return json_response(await service_of(request, RunService).step(run_id_of(request), step_id))


@router.get("/v1/runs/{run_id}/output", openapi_extra=_ONE, summary="A run's output")
async def show_output(request: Request) -> Response:
    """Stream the output, which may be any JSON; null before the run has ended."""
    return _streamed(await service_of(request, RunOutputs).output(run_id_of(request)))


@router.get(
    "/v1/runs/{run_id}/final_context",
    responses=errors(409, 413),
    openapi_extra=_ONE,
    summary="A run's final context",
)
async def show_final_context(request: Request) -> Response:
    """Stream the context as the run's last step has left it."""
    return _streamed(await service_of(request, RunOutputs).final_context(run_id_of(request)))


@router.get(
    "/v1/runs/{run_id}/steps/{step_id}/output",
    openapi_extra={"parameters": [_ID, _ID | {"name": "step_id", "schema": {"type": "string"}}]},
    summary="A step's output",
)
async def show_step_output(request: Request) -> Response:
    """Stream the output of a step, which may be any JSON; that of a `for_each` is the list of its items'."""
    return _streamed(await service_of(request, RunOutputs).output(run_id_of(request), request.path_params["step_id"]))


@router.get(
    "/v1/runs/{run_id}/graph",
    response_class=Response,
    responses={200: content("text/vnd.mermaid")},
    openapi_extra=_ONE,
    summary="A run as a Mermaid graph",
)
async def show_graph(request: Request) -> Response:
    """Draw the steps and their statuses."""
    runs, run_id = service_of(request, RunService), run_id_of(request)
    view = await runs.show(run_id, outputs=False)
    text = mermaid(await runs.definition(run_id), {step.step_id: step.status for step in view.steps})
    return Response(text, media_type="text/vnd.mermaid; charset=utf-8")


@router.get(
    "/v1/runs/{run_id}/events",
    responses={200: {"model": list[RunEvent]} | content("text/event-stream")},
    openapi_extra={"parameters": [_ID, *documented_query("after")]},
    summary="Follow a run",
)
async def follow_run(request: Request) -> Response:
    """Stream server-sent events until the run ends; `Last-Event-ID` (or `?after=`) resumes without loss or repetition.

    With `Accept: application/json` the response is the list of the events so far, at most 1000 in one response.
    """
    runs, run_id = service_of(request, RunService), run_id_of(request)
    await runs.status(run_id)
    after = offset_of(request.headers.get("last-event-id") or request.query_params.get("after") or "0", "after")
    if _wants_json(request.headers.get("accept", "")):
        found = await runs.events(run_id, after)
        return json_response(orjson.dumps([event.model_dump(mode="json") for event in found]))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    stream = _server_sent(runs.follow(run_id, after), trace_id_of(request.scope))
    return FollowerResponse(request, stream, headers=headers, media_type="text/event-stream")


@router.post(
    "/v1/runs/{run_id}/cancel", status_code=202, responses=_COMMANDED, openapi_extra=_ONE, summary="Cancel a run"
)
async def cancel_run(request: Request) -> Response:
    """End the run; steps that have not started never start."""
    return await _command(request, RunCommands.cancel)


@router.post(
    "/v1/runs/{run_id}/pause", status_code=202, responses=_COMMANDED, openapi_extra=_ONE, summary="Pause a run"
)
async def pause_run(request: Request) -> Response:
    """Let running steps finish, and start no other."""
    return await _command(request, RunCommands.pause)


@router.post(
    "/v1/runs/{run_id}/resume", status_code=202, responses=_COMMANDED, openapi_extra=_ONE, summary="Resume a paused run"
)
async def resume_run(request: Request) -> Response:
    """Continue where the run was paused."""
    return await _command(request, RunCommands.resume)


@router.post(
    "/v1/runs/{run_id}/retry",
    status_code=202,
    responses=_COMMANDED,
    openapi_extra=_ONE,
    summary="Retry a run that failed",
)
async def retry_run(request: Request) -> Response:
    """Continue at the step that failed; steps that succeeded do not run again. The deadline starts again."""
    await service_of(request, RunService).admit(caller_of(request))
    definition = await service_of(request, RunService).definition(run_id_of(request))
    return await _command(request, lambda commands, run_id: commands.retry(run_id, deadline=definition.deadline))


@router.post(
    "/v1/runs/{run_id}/signals/{name}",
    status_code=202,
    responses=_COMMANDED,
    openapi_extra={
        "parameters": [_ID, _ID | {"name": "name", "schema": {"type": "string"}}],
        "requestBody": _SIGNALLED,
    },
    summary="Send a signal to a run",
)
async def signal_run(request: Request) -> Response:
    """Pass the body, any JSON, to the `wait` step that takes the signal, as its output; early signals are kept."""
    name = request.path_params["name"]
    if not _SIGNAL.fullmatch(name):
        raise InvalidInput.at("name", "must be 1 to 128 letters, digits, and any of _.:-")
    payload = await read_json(request, default={})
    return await _command(request, lambda commands, run_id: commands.signal(run_id, name, payload))


def _streamed(found: StreamedJson) -> Response:
    headers = {"content-length": str(found.size)}
    return StreamingResponse(found.chunks, headers=headers, media_type="application/json")


async def _command(request: Request, command: Command) -> Response:
    runs, run_id = service_of(request, RunService), run_id_of(request)
    await runs.command(command, run_id)
    status = await runs.status(run_id)
    return json_response(RunCommanded(run_id=str(run_id), status=status), 202)


async def _server_sent(events: AsyncIterator[list[RunEvent]], trace_id: str | None) -> AsyncIterator[bytes]:
    try:
        async for found in events:
            yield b"".join(map(_message, found)) or b": alive\n\n"
        yield b"event: end\ndata: {}\n\n"
    except CitadelError as error:
        yield b"event: error\ndata: " + orjson.dumps(error.data.model_dump() | {"trace_id": trace_id}) + b"\n\n"


def _wants_json(accept: str) -> bool:
    """Return whether the client accepts JSON by name and does not accept events."""
    return "application/json" in accept and "text/event-stream" not in accept


def _message(event: RunEvent) -> bytes:
    body = orjson.dumps(event.model_dump(mode="json"))
    return f"id: {event.seq}\nevent: {event.type}\ndata: ".encode() + body + b"\n\n"


def run_id_of(request: Request) -> UUID:
    """Return the id of the run that the path names.

    Raises:
        NotFound: The path holds no valid id.
    """
    text = request.path_params["run_id"]
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(f"there is no run {text!r}") from None


def offset_of(text: str, field: str) -> int:
    """Return a count of events or results to skip.

    Raises:
        InvalidInput: The text is not a whole number.
    """
    return number_of(text, field, least=0, most=10**18 - 1)


def _filters(query: QueryParams) -> Filters:
    check_names(query, _FILTERS)
    for name, value in query.multi_items():
        if "\0" in value:
            raise InvalidInput.at(name, "must not hold a NUL character")
    return Filters(
        status=one_of(get_args(RunStatus), query.get("status"), "status"),
        workflow_id=query.get("workflow_id"),
        kind=one_of(KINDS, query.get("kind"), "kind"),
        labels=labels_of(query) or None,
        since=time_of(query.get("since"), "since"),
        until=time_of(query.get("until"), "until"),
        cursor=query.get("cursor"),
        limit=number_of(query.get("limit", "50"), "limit", most=MAX_RUNS),
    )
