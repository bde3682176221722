"""Dead letters for operators: listed, shown, requeued, dropped."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from citadel_common.deadline import Deadline
from citadel_common.delivery.accepted_tasks import HEADER as ACCEPTED_HEADER
from citadel_common.delivery.dead_letter_index import DeadLetterFilter, DeadLetterHead
from citadel_common.delivery.dead_letters import DeadLetter, DeadLetters
from citadel_common.delivery.requeue import Requeue
from citadel_common.errors import CitadelError, NotFound, StoreUnavailable
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.telemetry import tracing
from citadel_common.telemetry.messages import ATTEMPT_HEADER
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
from citadel_orchestration.api.tasks.publisher import Threads

if TYPE_CHECKING:
    from celery import Celery

T = TypeVar("T")
THREADS = 2
BULK_TIME = 20.0
"""Seconds after which a call about many dead letters returns, with a cursor to go on from."""


class DeadLetterService:
    """Store of dead letters and their requeueing; blocking calls run in threads of their own.

    Args:
        app: Celery app of a producer.
        settings: Settings of the process.
    """

    def __init__(self, app: "Celery", settings: CommonSettings) -> None:
        self._client = connect(settings.results, settings.stores)
        self._store = DeadLetters(self._client, ttl=settings.worker.dead_letter_ttl)
        self._requeue = Requeue(app, self._store, self._client)
        self._threads = Threads(THREADS, name="dead-letters")

    async def page(self, where: DeadLetterFilter, *, cursor: str | None, limit: int) -> DeadLetterList:
        """Return the dead letters that match, newest first, and the counts of all."""
        return await self._in_thread(lambda: self._page(where, cursor, limit))

    async def show(self, dead_letter_id: str) -> DeadLetterView:
        """Return one dead letter, complete.

        Raises:
            NotFound: There is no such dead letter.
        """
        return await self._in_thread(lambda: _view(self._existing(dead_letter_id)))

    async def requeue(self, dead_letter_id: str) -> DeadLetterRequeued:
        """Publish the task of a dead letter again.

        Raises:
            NotFound: There is no such dead letter.
            Conflict: The dead letter cannot be requeued.
        """
        requeued = await self._in_thread(lambda: self._requeue.requeue(dead_letter_id))
        return DeadLetterRequeued(id=requeued.id, task=requeued.task or "", queue=requeued.queue)

    async def requeue_ids(self, ids: list[str]) -> DeadLettersRequeued:
        """Publish the tasks of these dead letters again."""
        return await self._in_thread(lambda: self._requeue_each(ids, Deadline.after(BULK_TIME))[0])

    async def requeue_all(self, where: DeadLetterFilter, *, cursor: str | None, limit: int) -> DeadLettersRequeued:
        """Publish the tasks of at most `limit` dead letters that match again."""
        return await self._in_thread(lambda: self._requeue_page(where, cursor, limit))

    async def drop(self, dead_letter_id: str) -> None:
        """Remove a dead letter.

        Raises:
            NotFound: There is no such dead letter.
        """
        if not await self._in_thread(lambda: self._store.drop([dead_letter_id])):
            raise _missing(dead_letter_id)

    async def drop_all(self, where: DeadLetterFilter, *, cursor: str | None, limit: int) -> DeadLettersDropped:
        """Remove at most `limit` dead letters that match."""
        return await self._in_thread(lambda: self._drop_page(where, cursor, limit))

    def close(self) -> None:
        """End the threads and close the connections."""
        self._threads.close()
        self._client.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await self._threads.run(call)
        except ERRORS:
            raise StoreUnavailable from None

    def _existing(self, dead_letter_id: str) -> DeadLetter:
        found = self._store.get(dead_letter_id)
        if found is None:
            raise _missing(dead_letter_id)
        return found

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
        done, tried = self._requeue_each([head.id for head in page.heads], Deadline.after(BULK_TIME))
        if tried == len(page.heads):
            return done.model_copy(update={"next_cursor": page.cursor})
        resume_at = page.heads[tried - 1].position.cursor if tried else cursor
        return done.model_copy(update={"next_cursor": resume_at})

    def _requeue_each(self, ids: list[str], deadline: Deadline) -> tuple[DeadLettersRequeued, int]:
        """Requeue dead letters until the deadline; return the outcome and how many were tried.

        Raises:
            StoreUnavailable: A store does not answer, and nothing was requeued.
        """
        requeued: list[str] = []
        failed: list[DeadLetterFailure] = []
        for dead_letter_id in ids:
            if deadline.remaining <= 0:
                break
            try:
                self._requeue.requeue(dead_letter_id)
                requeued.append(dead_letter_id)
            except CitadelError as error:
                if isinstance(error, StoreUnavailable) and not requeued:
                    raise
                named = error.data.model_dump() | {"trace_id": tracing.trace_id_in(tracing.carrier())}
                failed.append(DeadLetterFailure(id=dead_letter_id, **named))
        return DeadLettersRequeued(requeued=requeued, failed=failed), len(requeued) + len(failed)

    def _drop_page(self, where: DeadLetterFilter, cursor: str | None, limit: int) -> DeadLettersDropped:
        page = self._store.page(where, cursor=cursor, limit=limit)
        return DeadLettersDropped(dropped=self._store.drop([head.id for head in page.heads]), next_cursor=page.cursor)


def _missing(dead_letter_id: str) -> NotFound:
    return NotFound(f"there is no dead letter {dead_letter_id!r}")


def _summary(head: DeadLetterHead) -> DeadLetterSummary:
    return DeadLetterSummary.model_validate(vars(head) | {"at": from_epoch(head.at)})


def _view(dead_letter: DeadLetter) -> DeadLetterView:
    headers = dead_letter.headers
    fields = vars(dead_letter) | vars(dead_letter.head)
    trace_id = tracing.trace_id_in(headers) or tracing.trace_id_in({"traceparent": headers.get(ATTEMPT_HEADER)})
    failure = dead_letter.failure and {"trace_id": trace_id} | dead_letter.failure
    fields |= {"at": from_epoch(dead_letter.at), "error": dead_letter.error, "failure": failure or None}
    fields |= {"accepted": bool(headers.get(ACCEPTED_HEADER)), "trace_id": trace_id}
    return DeadLetterView.model_validate(fields)
