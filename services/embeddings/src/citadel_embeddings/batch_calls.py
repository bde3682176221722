"""Sees each batch through: every item of it gets a result, and a bad text never fails its neighbours.

A failing call goes to another URL. If the server fails at these texts only, the batch is halved until the bad text
stands alone. If it ended while it had them, they are tried one at a time, so that each text ends at most two servers.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from citadel_common.embeddings.cache import EmbeddingCache
from citadel_common.errors import BackendUnavailable, CitadelError, DeadlineExceeded, TextRejected, UnknownModel
from citadel_embeddings.backends.base import Blame, ModelChanged, ServerFailed, TextTooLong, TimedOut
from citadel_embeddings.endpoints.pool import EndpointPool, Slot
from citadel_embeddings.items import Batch, Item, TextResult

ATTEMPTS = 3
"""Failing answers to a single text, over all URLs, before it is given up."""
BATCH_ATTEMPTS = 2
"""Failing answers to several texts before they are halved."""
RETRY_PAUSE = 0.1
"""Seconds before the same texts are tried again at most; the pause grows with the attempts."""
CRASHES = 2
"""Calls during which a server ended before the text of these calls counts as the reason."""
SPARE = 5.0
"""Seconds for which texts that ended a server wait for it to return, if only one other is left."""


class BatchCaller:
    """Sends batches to the endpoints of one backend.

    Args:
        pool: The endpoints.
        cache: Where vectors are stored and claims released.
        clock: The monotonic clock.
    """

    def __init__(
        self, pool: EndpointPool, cache: EmbeddingCache, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool
        self._cache = cache
        self._clock = clock
        self._isolation = asyncio.Lock()

    async def run(self, batch: Batch, slot: Slot | None = None) -> None:
        """Answer every item of a batch, whatever happens.

        Args:
            batch: The items.
            slot: For the first call; without one the call waits for room.
        """
        try:
            url, results = await self._with_failover(batch, slot)
        except TextRejected as error:
            await self._narrow_down(batch, error)
        except ServerFailed as error:
            await self._after_failure(batch, error)
        except CitadelError as error:
            await self.fail(batch.items, error)
        else:
            await self._finish(replace(batch, avoid=batch.avoid | {url}), results)

    async def fail(self, items: Sequence[Item], error: CitadelError) -> None:
        """Answer items with an error."""
        for item in items:
            item.result = TextResult.failed(error)
        await self._settle(items)

    async def _with_failover(self, batch: Batch, slot: Slot | None) -> tuple[str, list[TextResult]]:
        """Call endpoints until one answers, the failures are too many, or the last caller gives up."""
        attempts = _Attempts()
        while True:
            try:
                slot = slot or await self._acquire(batch)
                return slot.url, await self._call(batch, slot)
            except ModelChanged:
                if slot is None:
                    raise
            except (BackendUnavailable, DeadlineExceeded, UnknownModel) as error:
                self._raise_if_over(batch, attempts, error)
                if slot is not None and _blame(error) == "texts":
                    batch = replace(batch, avoid=batch.avoid | {slot.url})
            # else calls and controls keep step with a server that fails now and then
            await asyncio.sleep(attempts.failed * random.uniform(0.0, RETRY_PAUSE))  # noqa: S311  (only spreads calls)
            slot = None

    def _raise_if_over(self, batch: Batch, attempts: "_Attempts", error: CitadelError) -> None:
        """Count a failed call; raise its error, or one that says more, unless another call makes sense."""
        blame = _blame(error)
        attempts.unknown += isinstance(error, UnknownModel)
        attempts.failed += blame == "texts"
        if attempts.unknown >= len(self._pool.urls):
            raise error
        if blame == "crash" or (blame == "texts" and attempts.failed >= _most_attempts(batch, error)):
            raise error
        # a caller with more time may have joined while the call was under way
        if blame == "server" and batch.deadline.remaining <= 0:
            why = f": {attempts.last.message}" if attempts.last is not None else ""
            raise DeadlineExceeded(f"no backend embedded the text before the deadline{why}")
        if blame == "server" and self._is_given_up(batch, error):
            raise attempts.last or error
        attempts.last = error if isinstance(error, ServerFailed) else attempts.last

    def _is_given_up(self, batch: Batch, error: CitadelError) -> bool:
        return isinstance(error, BackendUnavailable) and self._pool.is_given_up(batch.key.model, batch.since)

    async def _acquire(self, batch: Batch) -> Slot:
        deadline = batch.deadline
        if deadline.remaining <= 0:
            raise DeadlineExceeded("no backend embedded the text before the deadline")
        return await self._pool.acquire(
            batch.key.model,
            deadline,
            since=batch.since,
            version=batch.key.version,
            avoid=batch.avoid,
            spare_until=batch.spare_until,
        )

    async def _call(self, batch: Batch, slot: Slot) -> list[TextResult]:
        deadline = batch.deadline
        if deadline.remaining <= 0:
            self._pool.release(slot)
            raise DeadlineExceeded("no backend embedded the text before the deadline")
        return await self._pool.embed(slot, batch, deadline)

    async def _finish(self, batch: Batch, results: Sequence[TextResult]) -> None:
        """Answer the items that have a vector, and try the others again."""
        good, bad = [], []
        for item, result in zip(batch.items, results, strict=True):
            if result.error is None:
                item.result = result
                good.append(item)
            else:
                bad.append(item)
        await self._settle(good)
        if bad:
            problem = next(result.error for result in results if result.error is not None)
            await self._narrow_down(replace(batch, items=bad), problem)

    async def _after_failure(self, batch: Batch, error: ServerFailed) -> None:
        if error.blame == "crash":
            await self._isolate(batch, error)
        elif error.blame == "server":
            await self.fail(batch.items, error)
        elif len(batch.items) > 1:
            await self._narrow_down(batch, error)
        else:
            await self.fail(batch.items, _own_error(error))

    async def _narrow_down(self, batch: Batch, error: CitadelError) -> None:
        """Halve the batch. A single text is cut if it is too long, else tried again, else given up."""
        items = batch.items
        self._begin_anew(items)
        if len(items) > 1:
            middle = len(items) // 2
            halves = (replace(batch, items=half) for half in (items[:middle], items[middle:]))
            await asyncio.gather(*(self.run(half) for half in halves))
        elif isinstance(error, TextTooLong) and batch.key.cut and not batch.truncate:
            await self.run(replace(batch, truncate=True, attempt=1))
        elif batch.attempt < ATTEMPTS and not isinstance(error, TextTooLong):
            await self.run(replace(batch, attempt=batch.attempt + 1))
        else:
            await self.fail(items, error)

    async def _isolate(self, batch: Batch, error: ServerFailed) -> None:
        """Try the texts of a call during which the server ended one at a time; one that does it again is the reason."""
        for item in batch.items:
            item.crashes += 1
        reason = TextRejected(f"servers end while they embed this text ({CRASHES} times): {error.message}")
        await self.fail([item for item in batch.items if item.crashes >= CRASHES], reason)
        suspects = [item for item in batch.items if item.crashes < CRASHES]
        if not suspects:  # else the lock, which whoever tries a suspect holds, would be waited for by its holder
            return
        self._begin_anew(suspects)
        spare_until = self._clock() + SPARE
        async with self._isolation:
            for item in suspects:
                await self.run(replace(batch, items=[item], spare_until=spare_until))

    def _begin_anew(self, items: Sequence[Item]) -> None:
        """Let the wait for a server begin anew: one has taken the call."""
        for item in items:
            item.since = self._clock()

    async def _settle(self, items: Sequence[Item]) -> None:
        """Store vectors and release claims, then answer."""
        # in this order: a caller who asks again right away finds the vector, and no other process finds a free claim
        results = {item.key: item.result for item in items if item.claimed and item.result is not None}
        good = {
            key: result.stored for key, result in results.items() if result.stored is not None and result.may_be_kept
        }
        failed = [key for key in results if key not in good]
        if good:
            await self._cache.put_many(good)
        if failed:
            await self._cache.release_many(failed)
        for item in items:
            item.answer()


@dataclass
class _Attempts:
    """Failed calls of one batch: at its texts only, and where the model is unknown; the last failure of a server."""

    failed: int = 0
    unknown: int = 0
    last: CitadelError | None = None


def _blame(error: CitadelError) -> Blame:
    return error.blame if isinstance(error, ServerFailed) else "server"


def _most_attempts(batch: Batch, error: CitadelError) -> int:
    """Return the failing answers after which the texts are given up or halved; those that time out cost the most."""
    if len(batch.items) > 1:
        return 1 if isinstance(error, TimedOut) else BATCH_ATTEMPTS
    return BATCH_ATTEMPTS if isinstance(error, TimedOut) else ATTEMPTS


def _own_error(error: ServerFailed) -> CitadelError:
    """Return the error of a text at which servers fail while they answer others.

    A text that takes too long, or comes when a server is busy, may have better luck another time.
    """
    if isinstance(error, TimedOut) or error.is_busy:
        return error
    return TextRejected(f"the backend fails at this text, while it answers others: {error.message}")
