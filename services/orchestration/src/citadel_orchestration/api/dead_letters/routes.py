"""Dead letters: listing, showing, requeueing, dropping; all of it needs the scope `admin`."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ValidationError
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
from citadel_orchestration.api.http.bodies import documented, read_body
from citadel_orchestration.api.http.query import flag_of, number_of, time_of
from citadel_orchestration.api.http.raw_route import RawRoute, services_of

router = APIRouter(route_class=RawRoute, tags=["dead letters"])
_FILTERS = ("queue", "task", "code", "error", "since", "until", "cursor", "limit")
_ID: dict[str, Any] = {
    "parameters": [{"name": "letter_id", "in": "path", "required": True, "schema": {"type": "string"}}]
}
_SELECTION = "say which: by ids, queue, task, code, error, since or until; or all=true for every one"


def _query(*names: str) -> dict[str, Any]:
    return {"parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]}


@router.get(
    "/v1/dead-letters",
    responses={200: {"model": DeadLetterList}},
    openapi_extra=_query(*_FILTERS),
    summary="List dead letters",
)
async def list_letters(request: Request) -> Response:
    """Newest first, without arguments; `error` is a part of the message. Needs the scope `admin`."""
    asked = _selection(request.query_params, _FILTERS)
    return _json(await services_of(request).letters.page(_filter(asked), cursor=asked.cursor, limit=asked.limit))


@router.get(
    "/v1/dead-letters/{letter_id}",
    responses={200: {"model": DeadLetterView}},
    openapi_extra=_ID,
    summary="Show a dead letter",
)
async def show_letter(request: Request) -> Response:
    """With its arguments and attempts. Needs the scope `admin`."""
    return _json(await services_of(request).letters.show(request.path_params["letter_id"]))


@router.post(
    "/v1/dead-letters/requeue",
    responses={200: {"model": DeadLettersRequeued}},
    openapi_extra=documented(DeadLetterSelection),
    summary="Requeue dead letters",
)
async def requeue_letters(request: Request) -> Response:
    """Those of `ids` or those that fit, at most `limit` in one call; each that cannot be is named with the reason."""
    asked, letters = await read_body(request, DeadLetterSelection), services_of(request).letters
    _check_means_some(asked)
    if asked.ids is not None:
        return _json(await letters.requeue_ids(asked.ids))
    return _json(await letters.requeue_all(_filter(asked), cursor=asked.cursor, limit=asked.limit))


@router.post(
    "/v1/dead-letters/{letter_id}/requeue",
    status_code=202,
    responses={202: {"model": DeadLetterRequeued}},
    openapi_extra=_ID,
    summary="Requeue a dead letter",
)
async def requeue_letter(request: Request) -> Response:
    """Its task is published with its own id, arguments and lane; deliveries and retries begin anew.

    409 for a message that could not be decoded, or a task whose arguments are no longer valid.
    """
    requeued = await services_of(request).letters.requeue(request.path_params["letter_id"])
    return Response(requeued.model_dump_json(), 202, media_type="application/json")


@router.delete("/v1/dead-letters/{letter_id}", status_code=204, openapi_extra=_ID, summary="Drop a dead letter")
async def drop_letter(request: Request) -> Response:
    """It is gone for good."""
    await services_of(request).letters.drop(request.path_params["letter_id"])
    return Response(status_code=204)


@router.delete(
    "/v1/dead-letters",
    responses={200: {"model": DeadLettersDropped}},
    openapi_extra=_query(*_FILTERS, "all"),
    summary="Drop dead letters",
)
async def drop_letters(request: Request) -> Response:
    """Those that fit, at most `limit` in one call; without any filter only with `all=true`."""
    asked = _selection(request.query_params, (*_FILTERS, "all"))
    _check_means_some(asked)
    return _json(await services_of(request).letters.drop_all(_filter(asked), cursor=asked.cursor, limit=asked.limit))


def _selection(query: Mapping[str, str], known: tuple[str, ...]) -> DeadLetterSelection:
    for name in query:
        if name not in known:
            raise InvalidInput.at(name, f"is no filter; there are {', '.join(known)}")
    found: dict[str, Any] = dict(query)
    if "limit" in found:
        found["limit"] = number_of(found["limit"], "limit", most=MOST_DEAD_LETTERS)
    if "all" in found:
        found["all"] = flag_of(found["all"], "all")
    try:
        return DeadLetterSelection(**found)
    except ValidationError as error:
        raise invalid_input(bad_fields(error)) from None


def _check_means_some(asked: DeadLetterSelection) -> None:
    """A call that changes letters says which; forgetting a filter must not mean all of them."""
    if asked.ids is None and not asked.all and not _filter(asked).names_some:
        raise InvalidInput(_SELECTION)
    if asked.ids is not None and (asked.all or _filter(asked).names_some):
        raise InvalidInput.at("ids", "stand alone: leave out the filters")


def _filter(asked: DeadLetterSelection) -> DeadLetterFilter:
    since, until = time_of(asked.since, "since"), time_of(asked.until, "until")
    return DeadLetterFilter(
        queue=asked.queue,
        task=asked.task,
        code=asked.code,
        error=asked.error,
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
    )


def _json(reply: BaseModel) -> Response:
    return Response(reply.model_dump_json(), media_type="application/json")
