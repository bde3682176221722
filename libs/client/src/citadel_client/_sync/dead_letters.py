# Generated from _async by `make sync-client`; edits here are lost.
"""Dead letters: tasks and messages that the server gave up on."""

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

from citadel_client._sync.connection import Connection
from citadel_client.models import DeadLetterFilters
from citadel_client.operations import PAGE, Operation, encode, get, path_of, post, query, query_value, read_as
from citadel_contracts.api import (
    DeadLetterList,
    DeadLetterRequeued,
    DeadLettersDropped,
    DeadLetterSelection,
    DeadLettersRequeued,
    DeadLetterSummary,
    DeadLetterView,
)

PATH = "/v1/dead-letters"
AT_ONCE = 200
"""Dead letters requeued or dropped by one call."""


class DeadLetters:
    """All dead letters of a server; the key needs the scope `admin`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, *, limit: int | None = None, **filters: Unpack[DeadLetterFilters]) -> Iterator[DeadLetterSummary]:
        """Yield dead letters, newest first; pages are fetched when they are needed."""

        def path(cursor: str | None, size: int) -> str:
            return PATH + query({**filters, "cursor": cursor, "limit": size})

        return self._connection.pages(DeadLetterList, lambda page: page.letters, path, limit)

    def page(
        self, *, limit: int = PAGE, cursor: str | None = None, **filters: Unpack[DeadLetterFilters]
    ) -> DeadLetterList:
        """Return one page, with the number of dead letters by queue and code."""
        path = PATH + query({**filters, "cursor": cursor, "limit": limit})
        return self._connection.call(get(path, DeadLetterList))

    def get(self, dead_letter_id: str) -> DeadLetterView:
        """Return a dead letter with its arguments and attempts.

        Raises:
            NotFound: There is no dead letter with that id.
        """
        return self._connection.call(get(path_of("dead-letters", dead_letter_id), DeadLetterView))

    def requeue(self, dead_letter_id: str) -> DeadLetterRequeued:
        """Run the task of a dead letter again, under its own id.

        Raises:
            NotFound: There is no dead letter with that id.
            Conflict: It could not be decoded, its arguments are no longer valid, or another client handles it.
        """
        path = path_of("dead-letters", dead_letter_id, "requeue")
        # If the server received a first request, a second would not find the dead letter.
        return self._connection.call(post(path, DeadLetterRequeued, repeatable=False))

    def requeue_all(
        self, ids: Iterable[str] | None = None, *, everything: bool = False, **filters: Unpack[DeadLetterFilters]
    ) -> Iterator[DeadLettersRequeued]:
        """Requeue the dead letters with these ids, or all that match the filters; yield the result of each call.

        Raises:
            InvalidRequest: There are neither ids nor filters, and `everything` is not set.
        """
        if ids is not None:
            given = [*ids]
            for start in range(0, len(given), AT_ONCE):
                yield self._requeue(ids=given[start : start + AT_ONCE])
            return
        wanted = {name: query_value(value) for name, value in filters.items() if value is not None}
        cursor = None
        while True:
            done = self._requeue(**wanted, all=everything, cursor=cursor, limit=AT_ONCE)
            yield done
            if (cursor := done.next_cursor) is None:
                return

    def _requeue(self, **selection: Any) -> DeadLettersRequeued:
        body = encode(DeadLetterSelection, **selection)
        return self._connection.call(post(f"{PATH}/requeue", DeadLettersRequeued, body, repeatable=False))

    def drop(self, dead_letter_id: str) -> None:
        """Remove a dead letter for good.

        Raises:
            NotFound: There is no dead letter with that id.
        """
        path = path_of("dead-letters", dead_letter_id)
        self._connection.call(Operation(method="DELETE", path=path, read=lambda _: None, repeatable=False))

    def drop_all(self, *, everything: bool = False, **filters: Unpack[DeadLetterFilters]) -> int:
        """Remove all dead letters that match the filters for good; return their number.

        Raises:
            InvalidRequest: There are no filters, and `everything` is not set.
        """
        dropped, cursor, read = 0, None, read_as(DeadLettersDropped)
        while True:
            parameters = {"all": "true" if everything else None, "cursor": cursor, "limit": AT_ONCE}
            path = PATH + query({**filters, **parameters})
            done = self._connection.call(Operation(method="DELETE", path=path, read=read))
            dropped += done.dropped
            if (cursor := done.next_cursor) is None:
                return dropped
