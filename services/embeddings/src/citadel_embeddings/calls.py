"""One batch through a backend: failover, bisecting, and a check of every vector.

A failing batch is halved until the bad text stands alone, so that it never fails its neighbours.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import orjson

from citadel_common.deadline import Deadline
from citadel_common.embeddings.vectors import Stored, Vector, checked_rows
from citadel_common.errors import (
    BackendUnavailable,
    BadVector,
    CitadelError,
    DeadlineExceeded,
    TextRejected,
    UnknownModel,
)
from citadel_common.telemetry import spans
from citadel_embeddings.backends.base import Backend, EmbedCall, EmbedReply, ServerFailed, TextTooLong, TimedOut
from citadel_embeddings.call_span import call_span
from citadel_embeddings.endpoints import Endpoints
from citadel_embeddings.work import CallKey, Computed, Item

ATTEMPTS = 3
"""Failing answers to the same texts, over all URLs, before the batch is halved or its one text given up."""

Settle = Callable[[Sequence[Item]], Awaitable[None]]
"""Stores and answers items whose outcome is known."""


class BatchCaller:
    """Finds the outcome of every item of a batch, whatever happens."""

    def __init__(self, backend: Backend, endpoints: Endpoints, *, timeout: float, settle: Settle) -> None:
        self._backend = backend
        self._endpoints = endpoints
        self._timeout = timeout
        self.settle = settle

    async def run(self, key: CallKey, items: Sequence[Item]) -> None:
        """Settles every item."""
        call = EmbedCall(
            model=key.model,
            texts=[item.text for item in items],
            dimensions=key.dimensions,
            options=orjson.loads(key.options),
            max_tokens=key.max_tokens,
        )
        await self._embed(key, call, items, frozenset())

    async def _embed(
        self, key: CallKey, call: EmbedCall, items: Sequence[Item], avoid: frozenset[str], attempt: int = 1
    ) -> None:
        try:
            url, reply, rows = await self._with_failover(key, call, items, avoid)
        except (TextRejected, ServerFailed) as error:
            await self._narrow_down(key, call, items, error, avoid, attempt)
        except CitadelError as error:
            await self._fail(items, error)
        else:
            bad = await self._answer(call, items, reply, rows)
            if bad:
                await self._narrow_down(key, call, bad, _first_problem(rows), avoid | {url}, attempt)

    async def _with_failover(
        self, key: CallKey, call: EmbedCall, items: Sequence[Item], avoid: frozenset[str]
    ) -> tuple[str, EmbedReply, list[Vector | BadVector]]:
        """Tries the URLs until one answers, the failures are too many, or the last waiter gives up."""
        since = max(item.since for item in items)
        failed = unknown = 0
        while True:
            deadline = _latest(items)
            if deadline.remaining <= 0:
                raise DeadlineExceeded("no backend embedded the text before the deadline")
            try:
                return await self._once(key, call, items, deadline, avoid)
            except DeadlineExceeded:
                continue  # somebody with more time may have joined meanwhile
            except ServerFailed as error:
                failed += 1
                too_much = isinstance(error, TimedOut) and len(items) > 1
                if failed >= ATTEMPTS or too_much:
                    raise
            except BackendUnavailable:
                if _latest(items).remaining <= 0 or self._endpoints.is_given_up(call.model, since):
                    raise
            except UnknownModel:
                unknown += 1
                if unknown >= len(self._endpoints.urls):
                    raise

    async def _once(
        self, key: CallKey, call: EmbedCall, items: Sequence[Item], deadline: Deadline, avoid: frozenset[str]
    ) -> tuple[str, EmbedReply, list[Vector | BadVector]]:
        tokens = sum(item.tokens for item in items)
        async with self._endpoints.call(
            call.model,
            tokens=tokens,
            texts=len(items),
            deadline=deadline,
            since=max(item.since for item in items),
            avoid=avoid,
        ) as url:
            with call_span(self._backend.kind, url, call, items) as span:
                reply = await self._reply(url, call, deadline)
                span.set_attribute(spans.TOKENS, reply.tokens)
            return url, reply, _checked(key, items, reply)

    async def _reply(self, url: str, call: EmbedCall, deadline: Deadline) -> EmbedReply:
        """The backend's reply.

        Raises:
            DeadlineExceeded: The time was up before the server had all of its own; that says nothing about it.
        """
        try:
            return await self._backend.embed(url, call, timeout=deadline.timeout(self._timeout))
        except TimedOut:
            if deadline.remaining <= 0:
                raise DeadlineExceeded from None
            raise

    async def _answer(
        self, call: EmbedCall, items: Sequence[Item], reply: EmbedReply, rows: Sequence[Vector | BadVector]
    ) -> list[Item]:
        """Settles the items that have a good vector; the others."""
        share, rest = divmod(reply.tokens, len(items))
        good, bad = [], []
        for index, (item, row) in enumerate(zip(items, rows, strict=True)):
            if isinstance(row, BadVector):
                bad.append(item)
                continue
            cut = call.truncate or bool(reply.truncated is not None and reply.truncated[index])
            item.outcome = Computed(Stored(row, cut), share + (index < rest))
            good.append(item)
        await self.settle(good)
        return bad

    async def _narrow_down(
        self,
        key: CallKey,
        call: EmbedCall,
        items: Sequence[Item],
        error: CitadelError,
        avoid: frozenset[str],
        attempt: int,
    ) -> None:
        """Halves, or for a single text: cuts it if it is too long, else tries again, else gives up."""
        for item in items:
            item.since = time.monotonic()  # a server took the call: the wait for one begins anew
        if len(items) > 1:
            middle = len(items) // 2
            halves = (items[:middle], items[middle:])
            await asyncio.gather(*(self._embed(key, _with_texts(call, half), half, avoid) for half in halves))
        elif isinstance(error, TextTooLong) and not call.truncate:
            await self._embed(key, replace(_with_texts(call, items), truncate=True), items, avoid)
        elif attempt < ATTEMPTS and not isinstance(error, TextTooLong | ServerFailed):
            await self._embed(key, _with_texts(call, items), items, avoid, attempt + 1)
        else:
            await self._fail(items, error)

    async def _fail(self, items: Sequence[Item], error: CitadelError) -> None:
        for item in items:
            item.outcome = item.outcome or error
        await self.settle(items)


def _checked(key: CallKey, items: Sequence[Item], reply: EmbedReply) -> list[Vector | BadVector]:
    """One checked vector per item.

    Raises:
        ServerFailed: Nothing of the answer to several texts is usable: that speaks against the server.
    """
    if len(reply.rows) != len(items):
        problem = BadVector(f"the backend answered with {len(reply.rows)} vectors for {len(items)} texts")
        rows: list[Vector | BadVector] = [problem] * len(items)
    else:
        rows = checked_rows(reply.rows, dimensions=key.expected)
    if len(rows) > 1 and all(isinstance(row, BadVector) for row in rows):
        raise ServerFailed(_first_problem(rows).message)
    return rows


def _latest(items: Sequence[Item]) -> Deadline:
    """The deadline of the most patient waiter."""
    return max((item.deadline for item in items), key=lambda deadline: deadline.at)


def _first_problem(rows: Sequence[Vector | BadVector]) -> BadVector:
    return next(row for row in rows if isinstance(row, BadVector))


def _with_texts(call: EmbedCall, items: Sequence[Item]) -> EmbedCall:
    return replace(call, texts=[item.text for item in items])
