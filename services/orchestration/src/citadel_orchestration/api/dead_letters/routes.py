"""Routes of dead letters; all need the scope `admin`."""

from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.delivery.dead_letter_index import DeadLetterFilter
from citadel_common.errors import InvalidInput
from citadel_common.validation import bad_fields, invalid_input
from citadel_contracts.api import (
    MOST_DEAD_LETTERS,
    DeadLetterList,
    DeadLetterRequeued,
    DeadLettersDropped,
    DeadLetterSelection,
    DeadLettersRequeued,
    DeadLetterView,
)
from citadel_orchestration.api.dead_letters.service import DeadLetterService
from citadel_orchestration.api.http.bodies import documented, json_response, read_body
from citadel_orchestration.api.http.openapi import errors
from citadel_orchestration.api.http.query import check_names, documented_query, flag_of, number_of, time_of
from citadel_orchestration.api.http.routing import RawRoute, service_of

# `name` keeps the operation ids of the OpenAPI document.
router = APIRouter(route_class=RawRoute, tags=["dead letters"])
_FILTERS = ("queue", "task", "code", "error", "since", "until", "cursor", "limit")
_ID: dict[str, Any] = {
    "parameters": [{"name": "letter_id", "in": "path", "required": True, "schema": {"type": "string"}}]
}
_NOTHING_SELECTED = "select dead letters by ids, queue, task, code, error, since or until, or all of them by all=true"


@router.get(
    "/v1/dead-letters",
    name="list_letters",
    responses={200: {"model": DeadLetterList}},
    openapi_extra={"parameters": documented_query(*_FILTERS)},
    summary="List dead letters",
)
async def list_dead_letters(request: Request) -> Response:
    """List dead letters, newest first, without arguments; `error` is part of the message. Needs the scope `admin`."""
    wanted = _selection(request.query_params, _FILTERS)
    service = service_of(request, DeadLetterService)
    return json_response(await service.page(_filter(wanted), cursor=wanted.cursor, limit=wanted.limit))


@router.get(
    "/v1/dead-letters/{letter_id}",
    name="show_letter",
    responses={200: {"model": DeadLetterView}},
    openapi_extra=_ID,
    summary="Show a dead letter",
)
async def show_dead_letter(request: Request) -> Response:
    """Show a dead letter with arguments and attempts. Needs the scope `admin`."""
    return json_response(await service_of(request, DeadLetterService).show(request.path_params["letter_id"]))


@router.post(
    "/v1/dead-letters/requeue",
    name="requeue_letters",
    responses={200: {"model": DeadLettersRequeued}},
    openapi_extra=documented(DeadLetterSelection),
    summary="Requeue dead letters",
)
async def requeue_dead_letters(request: Request) -> Response:
    """Requeue by `ids` or by filters, at most `limit` in one call; the response names the failures, with reasons."""
    wanted, service = await read_body(request, DeadLetterSelection), service_of(request, DeadLetterService)
    _check_selects(wanted)
    if wanted.ids is not None:
        return json_response(await service.requeue_ids(wanted.ids))
    return json_response(await service.requeue_all(_filter(wanted), cursor=wanted.cursor, limit=wanted.limit))


@router.post(
    "/v1/dead-letters/{letter_id}/requeue",
    name="requeue_letter",
    status_code=202,
    responses={202: {"model": DeadLetterRequeued}, **errors(409)},
    openapi_extra=_ID,
    summary="Requeue a dead letter",
)
async def requeue_dead_letter(request: Request) -> Response:
    """Publish its task with the same id, arguments and lane; counts of deliveries and retries start again at zero.

    409 for a message that cannot be decoded, or a task whose arguments are no longer valid.
    """
    requeued = await service_of(request, DeadLetterService).requeue(request.path_params["letter_id"])
    return json_response(requeued, 202)


@router.delete(
    "/v1/dead-letters/{letter_id}", name="drop_letter", status_code=204, openapi_extra=_ID, summary="Drop a dead letter"
)
async def drop_dead_letter(request: Request) -> Response:
    """Remove a dead letter; this cannot be undone."""
    await service_of(request, DeadLetterService).drop(request.path_params["letter_id"])
    return Response(status_code=204)


@router.delete(
    "/v1/dead-letters",
    name="drop_letters",
    responses={200: {"model": DeadLettersDropped}},
    openapi_extra={"parameters": documented_query(*_FILTERS, "all")},
    summary="Drop dead letters",
)
async def drop_dead_letters(request: Request) -> Response:
    """Remove at most `limit` dead letters in one call; without filters only if `all=true`."""
    wanted = _selection(request.query_params, (*_FILTERS, "all"))
    _check_selects(wanted)
    service = service_of(request, DeadLetterService)
    return json_response(await service.drop_all(_filter(wanted), cursor=wanted.cursor, limit=wanted.limit))


def _selection(query: QueryParams, known: tuple[str, ...]) -> DeadLetterSelection:
    check_names(query, known)
    found: dict[str, Any] = dict(query)
    if "limit" in found:
        found["limit"] = number_of(found["limit"], "limit", most=MOST_DEAD_LETTERS)
    if "all" in found:
        found["all"] = flag_of(found["all"], "all")
    try:
        return DeadLetterSelection(**found)
    except ValidationError as error:
        raise invalid_input(bad_fields(error)) from None


def _check_selects(wanted: DeadLetterSelection) -> None:
    """Refuse a selection of nothing or by both ids and filters: a forgotten filter must not select everything."""
    if wanted.ids is None and not wanted.all and not _filter(wanted).names_some:
        raise InvalidInput(_NOTHING_SELECTED)
    if wanted.ids is not None and (wanted.all or _filter(wanted).names_some):
        raise InvalidInput.at("ids", "cannot be combined with filters")


def _filter(wanted: DeadLetterSelection) -> DeadLetterFilter:
    since, until = time_of(wanted.since, "since"), time_of(wanted.until, "until")
    return DeadLetterFilter(
        queue=wanted.queue,
        task=wanted.task,
        code=wanted.code,
        error=wanted.error,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
    )
