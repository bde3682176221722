"""Dead letters for operators: the blocking store and producer behind threads of their own."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from citadel_common.deadline import Deadline
from citadel_common.delivery.accepted_tasks import HEADER as ACCEPTED_HEADER
from citadel_common.delivery.dead_letter_index import DeadLetterFilter, DeadLetterHead
from citadel_common.delivery.dead_letters import DeadLetter, DeadLetters
from citadel_common.delivery.requeue import Requeue
from citadel_common.errors import CitadelError, NotFound, StoreUnavailable
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.tasks.app import create_app
from citadel_common.timestamps import from_epoch
from citadel_contracts.api import (
    DeadLetterCount,
    DeadLetterFailure,
    DeadLetterList,
    DeadLetterRequeued,
    DeadLettersDropped,
    DeadLettersRequeued,
    DeadLetterSummary,
    DeadLetterView,
)

T = TypeVar("T")
THREADS = 2
PATIENCE = 20.0
"""Seconds after which a call that deals with many letters ends and says where to go on."""


class Letters:
    """What the routes of dead letters work with."""

    def __init__(self, settings: CommonSettings) -> None:
        self._app = create_app(settings)
        self._app.conf.result_backend = "disabled://"
        self._client = connect(settings.results, settings.stores)
        self._store = DeadLetters(self._client, ttl=settings.worker.dead_letter_ttl)
        self._requeue = Requeue(self._app, self._store, self._client)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="letters")

    async def page(self, where: DeadLetterFilter, *, cursor: str | None, limit: int) -> DeadLetterList:
        """Letters that fit, newest first, and how many there are in all."""
        return await self._in_thread(lambda: self._page(where, cursor, limit))

    async def show(self, letter_id: str) -> DeadLetterView:
        """One letter, complete.

        Raises:
            NotFound: There is no such letter.
        """
        return await self._in_thread(lambda: _view(self._existing(letter_id)))

    async def requeue(self, letter_id: str) -> DeadLetterRequeued:
        """Publishes a letter's task again.

        Raises:
            NotFound: There is no such letter.
            Conflict: It cannot be requeued.
        """
        letter = await self._in_thread(lambda: self._requeue.requeue(letter_id))
        return DeadLetterRequeued(id=letter.id, task=letter.task or "", queue=letter.queue)

    async def requeue_ids(self, ids: list[str]) -> DeadLettersRequeued:
        """Publishes the tasks of these letters again."""
        return await self._in_thread(lambda: self._requeue_each(ids, Deadline.after(PATIENCE))[0])

    async def requeue_all(self, where: DeadLetterFilter, *, cursor: str | None, limit: int) -> DeadLettersRequeued:
        """Publishes the tasks of letters that fit again, at most `limit`."""
        return await self._in_thread(lambda: self._requeue_page(where, cursor, limit))

    async def drop(self, letter_id: str) -> None:
        """Removes a letter.

        Raises:
            NotFound: There is no such letter.
        """
        if not await self._in_thread(lambda: self._store.drop([letter_id])):
            raise _missing(letter_id)

    async def drop_all(self, where: DeadLetterFilter, *, cursor: str | None, limit: int) -> DeadLettersDropped:
        """Removes letters that fit, at most `limit`."""
        return await self._in_thread(lambda: self._drop_page(where, cursor, limit))

    def close(self) -> None:
        """Ends the threads and connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._app.close()
        self._client.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            within = contextvars.copy_context()
            return await asyncio.get_running_loop().run_in_executor(self._threads, within.run, call)
        except ERRORS:
            raise StoreUnavailable from None

    def _existing(self, letter_id: str) -> DeadLetter:
        letter = self._store.get(letter_id)
        if letter is None:
            raise _missing(letter_id)
        return letter

    def _page(self, where: DeadLetterFilter, cursor: str | None, limit: int) -> DeadLetterList:
        page = self._store.page(where, cursor=cursor, limit=limit)
        counts = sorted(self._store.counts().items())
        return DeadLetterList(
            letters=[_summary(head) for head in page.heads],
            next_cursor=page.cursor,
            total=self._store.count(),
            counts=[DeadLetterCount(queue=queue, code=code, count=count) for (queue, code), count in counts],
        )

    def _requeue_page(self, where: DeadLetterFilter, cursor: str | None, limit: int) -> DeadLettersRequeued:
        page = self._store.page(where, cursor=cursor, limit=limit)
        done, dealt_with = self._requeue_each([head.id for head in page.heads], Deadline.after(PATIENCE))
        if dealt_with == len(page.heads):
            return done.model_copy(update={"next_cursor": page.cursor})
        where_it_ended = page.heads[dealt_with - 1].position.cursor if dealt_with else cursor
        return done.model_copy(update={"next_cursor": where_it_ended})

    def _requeue_each(self, ids: list[str], deadline: Deadline) -> tuple[DeadLettersRequeued, int]:
        """What became of them, and how many were dealt with in time.

        Raises:
            StoreUnavailable: Nothing could be requeued, since a store does not answer.
        """
        requeued: list[str] = []
        failed: list[DeadLetterFailure] = []
        for letter_id in ids:
            if deadline.remaining <= 0:
                break
            try:
                self._requeue.requeue(letter_id)
                requeued.append(letter_id)
            except CitadelError as error:
                if isinstance(error, StoreUnavailable) and not requeued:
                    raise
                failed.append(DeadLetterFailure(id=letter_id, **error.data.model_dump()))
        return DeadLettersRequeued(requeued=requeued, failed=failed), len(requeued) + len(failed)

    def _drop_page(self, where: DeadLetterFilter, cursor: str | None, limit: int) -> DeadLettersDropped:
        page = self._store.page(where, cursor=cursor, limit=limit)
        return DeadLettersDropped(dropped=self._store.drop([head.id for head in page.heads]), next_cursor=page.cursor)


def _missing(letter_id: str) -> NotFound:
    return NotFound(f"there is no dead letter {letter_id!r}")


def _summary(head: DeadLetterHead) -> DeadLetterSummary:
    return DeadLetterSummary.model_validate(vars(head) | {"at": from_epoch(head.at)})


def _view(letter: DeadLetter) -> DeadLetterView:
    told = vars(letter) | vars(letter.head) | {"at": from_epoch(letter.at), "error": letter.error}
    told |= {"failure": letter.failure or None}
    accepted, trace_id = bool(letter.headers.get(ACCEPTED_HEADER)), _trace_id(letter.headers.get("traceparent"))
    return DeadLetterView.model_validate(told | {"accepted": accepted, "trace_id": trace_id})


def _trace_id(traceparent: object) -> str | None:
    parts = traceparent.split("-") if isinstance(traceparent, str) else []
    return parts[1] if len(parts) >= 4 else None
