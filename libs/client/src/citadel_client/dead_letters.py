"""Dead letters: tasks and messages that the server put aside, in both colours."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TypeVar, Unpack

from citadel_client import operation_calls as calls
from citadel_client.drivers import AsyncDriver, SyncDriver
from citadel_client.flow import Call, Terms, exchange
from citadel_client.operation_calls import AT_ONCE, PAGE, LetterFilters
from citadel_contracts.api import (
    DeadLetterList,
    DeadLetterRequeued,
    DeadLettersRequeued,
    DeadLetterSummary,
    DeadLetterView,
)

T = TypeVar("T")


class DeadLetters:
    """All dead letters of a server; its key needs the scope `admin`."""

    def __init__(self, driver: SyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    def _call(self, call: Call[T]) -> T:
        return self._driver.run(exchange(call, self._terms))

    def list(self, *, limit: int | None = None, **filters: Unpack[LetterFilters]) -> Iterator[DeadLetterSummary]:
        """Letters, newest first; pages are fetched as they are needed."""
        cursor, left = None, limit
        while left is None or left > 0:
            page = self._call(calls.page(cursor, PAGE if left is None else min(PAGE, left), filters))
            yield from page.letters
            cursor, left = page.next_cursor, None if left is None else left - len(page.letters)
            if cursor is None:
                return

    def page(self, *, limit: int = PAGE, cursor: str | None = None, **filters: Unpack[LetterFilters]) -> DeadLetterList:
        """One page, with how many letters there are by queue and code."""
        return self._call(calls.page(cursor, limit, filters))

    def get(self, letter_id: str) -> DeadLetterView:
        """One letter with its arguments and attempts.

        Raises:
            NotFound: There is none of that id.
        """
        return self._call(calls.show(letter_id))

    def requeue(self, letter_id: str) -> DeadLetterRequeued:
        """Have its task run again, under its own id.

        Raises:
            NotFound: There is none of that id.
            Conflict: It could not be decoded, its arguments are no longer valid, or somebody else is at it.
        """
        return self._call(calls.requeue(letter_id))

    def requeue_all(
        self, ids: Iterable[str] | None = None, *, everything: bool = False, **filters: Unpack[LetterFilters]
    ) -> Iterator[DeadLettersRequeued]:
        """Requeue the letters of some ids, or all that fit: what became of them, call by call.

        Raises:
            InvalidRequest: There is no filter, and `everything` does not say that all of them are meant.
        """
        if ids is not None:
            for some in _groups(ids):
                yield self._call(calls.requeue_some(some))
            return
        cursor = None
        while True:
            done = self._call(calls.requeue_all(cursor, filters, everything=everything))
            yield done
            if (cursor := done.next_cursor) is None:
                return

    def drop(self, letter_id: str) -> None:
        """Remove a letter for good.

        Raises:
            NotFound: There is none of that id.
        """
        self._call(calls.drop(letter_id))

    def drop_all(self, *, everything: bool = False, **filters: Unpack[LetterFilters]) -> int:
        """Remove all letters that fit for good; how many.

        Raises:
            InvalidRequest: There is no filter, and `everything` does not say that all of them are meant.
        """
        dropped, cursor = 0, None
        while True:
            done = self._call(calls.drop_all(cursor, filters, everything=everything))
            dropped += done.dropped
            if (cursor := done.next_cursor) is None:
                return dropped


class AsyncDeadLetters:
    """The same, awaited; `DeadLetters` documents arguments, results and errors."""

    def __init__(self, driver: AsyncDriver, terms: Terms) -> None:
        self._driver = driver
        self._terms = terms

    async def _call(self, call: Call[T]) -> T:
        return await self._driver.run(exchange(call, self._terms))

    async def list(
        self, *, limit: int | None = None, **filters: Unpack[LetterFilters]
    ) -> AsyncIterator[DeadLetterSummary]:
        """Letters, newest first; pages are fetched as they are needed."""
        cursor, left = None, limit
        while left is None or left > 0:
            page = await self._call(calls.page(cursor, PAGE if left is None else min(PAGE, left), filters))
            for letter in page.letters:
                yield letter
            cursor, left = page.next_cursor, None if left is None else left - len(page.letters)
            if cursor is None:
                return

    async def page(
        self, *, limit: int = PAGE, cursor: str | None = None, **filters: Unpack[LetterFilters]
    ) -> DeadLetterList:
        """One page, with how many letters there are by queue and code."""
        return await self._call(calls.page(cursor, limit, filters))

    async def get(self, letter_id: str) -> DeadLetterView:
        """One letter with its arguments and attempts."""
        return await self._call(calls.show(letter_id))

    async def requeue(self, letter_id: str) -> DeadLetterRequeued:
        """Have its task run again, under its own id."""
        return await self._call(calls.requeue(letter_id))

    async def requeue_all(
        self, ids: Iterable[str] | None = None, *, everything: bool = False, **filters: Unpack[LetterFilters]
    ) -> AsyncIterator[DeadLettersRequeued]:
        """Requeue the letters of some ids, or all that fit: what became of them, call by call."""
        if ids is not None:
            for some in _groups(ids):
                yield await self._call(calls.requeue_some(some))
            return
        cursor = None
        while True:
            done = await self._call(calls.requeue_all(cursor, filters, everything=everything))
            yield done
            if (cursor := done.next_cursor) is None:
                return

    async def drop(self, letter_id: str) -> None:
        """Remove a letter for good."""
        await self._call(calls.drop(letter_id))

    async def drop_all(self, *, everything: bool = False, **filters: Unpack[LetterFilters]) -> int:
        """Remove all letters that fit for good; how many."""
        dropped, cursor = 0, None
        while True:
            done = await self._call(calls.drop_all(cursor, filters, everything=everything))
            dropped += done.dropped
            if (cursor := done.next_cursor) is None:
                return dropped


def _groups(ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    found = tuple(ids)
    for start in range(0, len(found), AT_ONCE):
        yield found[start : start + AT_ONCE]
