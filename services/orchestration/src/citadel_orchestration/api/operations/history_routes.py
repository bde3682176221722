"""The history of health checks and system metrics."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from citadel_common.errors import InvalidInput, NotFound
from citadel_common.history import KINDS, Kind
from citadel_contracts.api import HistoryResponse
from citadel_orchestration.api.http.query import number_of, time_of
from citadel_orchestration.api.http.raw_route import RawRoute, services_of

router = APIRouter(route_class=RawRoute, tags=["operations"])
MOST = 1000
"""Entries in one answer."""
_QUERY = ("since", "until", "limit")
_KIND = {"name": "kind", "in": "path", "required": True, "schema": {"enum": list(KINDS)}}
_PARAMETERS: dict[str, Any] = {
    "parameters": [_KIND, *({"name": name, "in": "query", "schema": {"type": "string"}} for name in _QUERY)]
}


@router.get(
    "/v1/history/{kind}",
    responses={200: {"model": HistoryResponse}},
    openapi_extra=_PARAMETERS,
    summary="History of health checks or system metrics",
)
async def show_history(request: Request) -> Response:
    """Newest first: from `since` on and before `until` (ISO 8601), `limit` at most (100 where it is left out)."""
    query, kind = request.query_params, _kind(request.path_params["kind"])
    for name in query:
        if name not in _QUERY:
            raise InvalidInput.at(name, f"is no parameter; there are {', '.join(_QUERY)}")
    since, until = time_of(query.get("since"), "since"), time_of(query.get("until"), "until")
    limit = number_of(query.get("limit", "100"), "limit", most=MOST)
    entries = await services_of(request).history.between(kind, since, until, limit)
    return Response(HistoryResponse(kind=kind, entries=entries).model_dump_json(), media_type="application/json")


def _kind(name: str) -> Kind:
    for kind in KINDS:
        if kind == name:
            return kind
    raise NotFound(f"there is no history of {name!r}; there are {', '.join(KINDS)}")
