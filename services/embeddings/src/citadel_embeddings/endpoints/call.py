"""One call of a backend: its span, its timeout, and the check of every vector that it returns."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import orjson
from opentelemetry.trace import INVALID_SPAN, Span

from citadel_common.deadline import Deadline
from citadel_common.embeddings.vectors import Stored, Vector, checked_rows
from citadel_common.errors import BadVector, DeadlineExceeded
from citadel_common.telemetry import spans, tracing
from citadel_embeddings.backends.base import Backend, EmbedCall, EmbedReply, ServerFailed, TimedOut
from citadel_embeddings.items import Batch, Item, TextResult

MOST_LINKS = 64
"""Requests that a call's span is linked with; the SDK keeps twice as many."""


async def call_backend(
    backend: Backend, url: str, batch: Batch, deadline: Deadline, *, timeout: float
) -> list[TextResult]:
    """Return one result per item; an unusable vector is a BadVector among them.

    Args:
        backend: The protocol.
        url: The server.
        batch: The texts.
        deadline: When nobody waits any more.
        timeout: Seconds that the server may take.

    Raises:
        DeadlineExceeded: The time was up before the server had all of its own; that says nothing about it.
        ServerFailed: Nothing of the answer to several texts is usable, which speaks against the server.
        CitadelError: Any other error of the backend.
    """
    call = EmbedCall(
        model=batch.key.model,
        texts=[item.text for item in batch.items],
        dimensions=batch.key.dimensions,
        options=orjson.loads(batch.key.options),
        max_tokens=batch.key.max_tokens,
        truncate=batch.truncate,
    )
    with _span(backend.kind, url, batch) as span:
        try:
            reply = await backend.embed(url, call, timeout=deadline.timeout(timeout))
        except TimedOut:
            if deadline.remaining <= 0:
                raise DeadlineExceeded from None
            raise
        span.set_attribute(spans.TOKENS, reply.tokens)
    return _results(batch, reply)


def _results(batch: Batch, reply: EmbedReply) -> list[TextResult]:
    rows = _checked(batch, reply)
    share, rest = divmod(reply.tokens, len(rows))
    cut = [True] * len(rows) if batch.truncate else reply.truncated or [False] * len(rows)
    return [
        TextResult.failed(row)
        if isinstance(row, BadVector)
        else TextResult(stored=Stored(row, cut[index]), tokens=share + (index < rest))
        for index, row in enumerate(rows)
    ]


def _checked(batch: Batch, reply: EmbedReply) -> list[Vector | BadVector]:
    """Return one checked vector per item.

    Raises:
        ServerFailed: None of several vectors is usable.
    """
    count = len(batch.items)
    if len(reply.rows) != count:
        problem = BadVector(f"the backend answered with {len(reply.rows)} vectors for {count} texts")
        rows: list[Vector | BadVector] = [problem] * count
    else:
        rows = checked_rows(reply.rows, dimensions=batch.key.vector_size)
    bad = [row for row in rows if isinstance(row, BadVector)]
    if len(bad) == count > 1:
        raise ServerFailed(bad[0].message)
    return rows


@contextmanager
def _span(kind: str, url: str, batch: Batch) -> Iterator[Span]:
    """Span of a call, below that of the first request it serves and linked with the others; none if none is traced."""
    callers = _callers(batch.items) if tracing.is_on() else []
    if not callers:
        yield INVALID_SPAN
        return
    first, *others = callers
    parent = tracing.below(first.get_span_context())
    links = [other.get_span_context() for other in others]
    about = _attributes(kind, url, batch)
    with tracing.span(spans.EMBEDDINGS, batch.key.model, about, parent=parent, links=links) as span:
        for other in others:
            other.add_link(span.get_span_context())
        yield span


def _callers(items: Sequence[Item]) -> list[Span]:
    """Return the span of each request once, in the order of the items."""
    found = {caller.get_span_context().span_id: caller for item in items for caller in item.callers}
    return list(found.values())[:MOST_LINKS]


def _attributes(kind: str, url: str, batch: Batch) -> tracing.Attributes:
    address = urlsplit(url)
    return {
        spans.GEN_AI_OPERATION: "embeddings",
        spans.GEN_AI_PROVIDER: kind,
        spans.GEN_AI_MODEL: batch.key.model,
        spans.TEXTS: len(batch.items),
        spans.SERVER_ADDRESS: address.hostname,
        spans.SERVER_PORT: address.port,
    }
