"""One call of a backend: its span, its timeout, and the check of every vector that it returns.

Where a server cannot do what was asked, it is done here: texts are cut, vectors shortened.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import orjson
from opentelemetry.trace import INVALID_SPAN, Span

from citadel_common.deadline import Deadline
from citadel_common.embeddings.vectors import Stored, Vector, checked_rows
from citadel_common.errors import BadVector, DeadlineExceeded
from citadel_common.telemetry import spans, tracing
from citadel_embeddings.backends.base import (
    Backend,
    EmbedCall,
    EmbedReply,
    ModelChanged,
    ServerFailed,
    TextTooLong,
    TimedOut,
    dimensions_refused,
)
from citadel_embeddings.backends.versions import ModelVersions
from citadel_embeddings.endpoints.cutting import embed_beginning
from citadel_embeddings.items import Batch, BatchKey, Item, TextResult

MOST_LINKS = 64
"""Requests that a call's span is linked with; the SDK keeps twice as many."""


async def call_backend(
    backend: Backend,
    url: str,
    batch: Batch,
    deadline: Deadline,
    *,
    timeout: float,
    versions: ModelVersions | None = None,
) -> list[TextResult]:
    """Return one result per item; an unusable vector is a BadVector among them.

    Args:
        backend: The protocol.
        url: The server.
        batch: The texts.
        deadline: When nobody waits any more.
        timeout: Seconds that the server may take.
        versions: Versions of the models; None if the protocol names none.

    Raises:
        ModelChanged: The server has another version of the model than the texts' keys name.
        DeadlineExceeded: The time was up before the server had all of its own; that says nothing about it.
        ServerFailed: Nothing of the answer to several texts is usable, which speaks against the server.
        InvalidInput: The model's vectors cannot have the length that was asked for.
        CitadelError: Any other error of the backend.
    """
    call = EmbedCall(
        model=batch.key.model,
        texts=[item.text for item in batch.items],
        dimensions=batch.key.dimensions,
        size=batch.key.own_dimensions,
        may_shorten=batch.key.matryoshka,
        options=orjson.loads(batch.key.options),
        max_tokens=batch.key.max_tokens,
        truncate=batch.truncate,
    )
    with _span(backend.kind, url, batch) as span:
        try:
            reply = await _embed(backend, url, call, timeout=deadline.timeout(timeout))
        except TimedOut:
            if deadline.remaining <= 0:
                raise DeadlineExceeded from None
            raise
        span.set_attribute(spans.TOKENS, reply.tokens)
    results = _results(batch, reply)
    if versions is None or batch.key.version is None:
        return results
    return await _of_version(versions, url, batch.key, results, was_loaded=reply.was_loaded)


async def _of_version(
    versions: ModelVersions, url: str, key: BatchKey, results: list[TextResult], *, was_loaded: bool
) -> list[TextResult]:
    """Return the results if they are of the version that the key names; without an answer they are not kept.

    Raises:
        ModelChanged: They are of another version.
    """
    same = await versions.served(url, key.model, key.version or "", was_loaded=was_loaded)
    if same is False:
        raise ModelChanged(f"{key.model!r} is no longer in version {key.version!r}")
    return results if same else [replace(result, may_be_kept=False) for result in results]


async def _embed(backend: Backend, url: str, call: EmbedCall, *, timeout: float) -> EmbedReply:
    try:
        return await backend.embed(url, call, timeout=timeout)
    except TextTooLong as error:
        if not call.truncate:
            raise
        return await embed_beginning(backend, url, call, error, timeout=timeout)


def _results(batch: Batch, reply: EmbedReply) -> list[TextResult]:
    rows = _checked(batch, reply)
    share, rest = divmod(reply.tokens, len(rows))
    cut = reply.truncated or [False] * len(rows)
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
        rows = _of_asked_length(batch.key, reply.rows)
    bad = [row for row in rows if isinstance(row, BadVector)]
    if len(bad) == count > 1:
        raise ServerFailed(bad[0].message)
    return rows


def _of_asked_length(key: BatchKey, rows: Sequence[object]) -> list[Vector | BadVector]:
    """Return one checked vector per row; longer ones than were asked for are shortened if the model allows that.

    Raises:
        InvalidInput: The server ignores `dimensions`, and the model is not known to allow it.
    """
    checked = checked_rows(rows, dimensions=key.vector_size)
    wanted = key.dimensions
    if wanted is None or not all(isinstance(row, BadVector) for row in checked):
        return checked
    full = checked_rows(rows, dimensions=key.own_dimensions)
    sizes = {row.size for row in full if not isinstance(row, BadVector)}
    if len(sizes) != 1 or max(sizes) <= wanted:
        return checked
    if not key.matryoshka:
        raise dimensions_refused(key.model, f"gives {max(sizes)} dimensions")
    return [row if isinstance(row, BadVector) else _shortened(row, wanted) for row in full]


def _shortened(vector: Vector, size: int) -> Vector | BadVector:
    """Return the beginning of a vector, of length 1 again."""
    beginning = vector[:size]
    norm = float(np.linalg.norm(beginning))
    if norm == 0.0:
        return BadVector(f"the first {size} dimensions of the backend's vector are zero")
    shorter: Vector = (beginning / norm).astype("<f4")
    return shorter


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
