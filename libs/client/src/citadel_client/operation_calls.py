"""The operations of those who look after a server, as calls: dead letters and history."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict
from urllib.parse import quote, urlencode

from citadel_client.calls import reader_of
from citadel_client.flow import Call
from citadel_contracts.api import (
    DeadLetterList,
    DeadLetterRequeued,
    DeadLettersDropped,
    DeadLetterSelection,
    DeadLettersRequeued,
    DeadLetterView,
    HistoryKind,
    HistoryResponse,
)

PATH = "/v1/dead-letters"
PAGE = 100
"""Letters asked for at once."""
AT_ONCE = 200
"""Letters requeued or dropped in one call."""


class LetterFilters(TypedDict, total=False):
    """Which dead letters; what is left out does not filter.

    Attributes:
        queue: Where they came from.
        task: Registered name of the task.
        code: Error code.
        error: Part of the error message, in any case.
        since: Put aside at or after this time.
        until: Put aside before this time.
    """

    queue: str | None
    task: str | None
    code: str | None
    error: str | None
    since: datetime | None
    until: datetime | None


def _plain(filters: LetterFilters) -> dict[str, str]:
    items = [(name, value) for name, value in filters.items() if value is not None]
    return {name: value.isoformat() if isinstance(value, datetime) else str(value) for name, value in items}


def _query(parameters: Mapping[str, Any]) -> str:
    return urlencode({name: value for name, value in parameters.items() if value is not None})


def _path(letter_id: str, below: str = "") -> str:
    return f"{PATH}/{quote(letter_id, safe='')}{below}"


def page(cursor: str | None, limit: int, filters: LetterFilters) -> Call[DeadLetterList]:
    """A page of dead letters, newest first."""
    query = _query(_plain(filters) | {"cursor": cursor, "limit": limit})
    return Call(method="GET", path=f"{PATH}?{query}", read=reader_of(DeadLetterList))


def show(letter_id: str) -> Call[DeadLetterView]:
    """A dead letter with its arguments."""
    return Call(method="GET", path=_path(letter_id), read=reader_of(DeadLetterView))


def requeue(letter_id: str) -> Call[DeadLetterRequeued]:
    """Requeue one; made twice, the second would not find it."""
    return Call(method="POST", path=_path(letter_id, "/requeue"), read=reader_of(DeadLetterRequeued), repeatable=False)


def requeue_some(ids: Sequence[str]) -> Call[DeadLettersRequeued]:
    """Requeue those of these ids."""
    return _requeued(lambda: DeadLetterSelection(ids=list(ids)))


def requeue_all(cursor: str | None, filters: LetterFilters, *, everything: bool) -> Call[DeadLettersRequeued]:
    """Requeue the next ones that fit."""
    wanted: dict[str, Any] = {**_plain(filters), "all": everything, "cursor": cursor, "limit": AT_ONCE}
    return _requeued(lambda: DeadLetterSelection(**wanted))


def _requeued(body: Any) -> Call[DeadLettersRequeued]:
    return Call(method="POST", path=f"{PATH}/requeue", body=body, read=reader_of(DeadLettersRequeued), repeatable=False)


def drop(letter_id: str) -> Call[None]:
    """Remove one for good."""
    return Call(method="DELETE", path=_path(letter_id), read=lambda _: None, repeatable=False)


def drop_all(cursor: str | None, filters: LetterFilters, *, everything: bool) -> Call[DeadLettersDropped]:
    """Remove the next ones that fit."""
    query = _query(_plain(filters) | {"all": "true" if everything else None, "cursor": cursor, "limit": AT_ONCE})
    return Call(method="DELETE", path=f"{PATH}?{query}", read=reader_of(DeadLettersDropped))


def history(
    kind: HistoryKind, since: datetime | None, until: datetime | None, limit: int
) -> Call[list[dict[str, Any]]]:
    """Entries of a history, newest first."""
    times = {"since": since and since.isoformat(), "until": until and until.isoformat()}
    read = reader_of(HistoryResponse)
    path = f"/v1/history/{kind}?{_query(times | {'limit': limit})}"
    return Call(method="GET", path=path, read=lambda response: read(response).entries)
