"""The span of a call to a backend: below one of the requests that it serves, and linked with the others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from opentelemetry.trace import INVALID_SPAN, Span

from citadel_common.telemetry import spans, tracing
from citadel_embeddings.backends.base import EmbedCall
from citadel_embeddings.work import Item

MOST_LINKS = 64
"""Requests that a call is linked with; the SDK keeps twice as many."""


@contextmanager
def call_span(kind: str, url: str, call: EmbedCall, items: Sequence[Item]) -> Iterator[Span]:
    """Around one call; nothing where no request that it serves is traced.

    Args:
        kind: The backend's protocol.
        url: Where it is.
        call: What is asked.
        items: The texts, with the spans of those who wait for them.
    """
    callers = _callers(items) if tracing.is_on() else []
    if not callers:
        yield INVALID_SPAN
        return
    first, *others = callers
    parent = tracing.below(first.get_span_context())
    links = [other.get_span_context() for other in others]
    with tracing.span(spans.EMBEDDINGS, call.model, _about(kind, url, call), parent=parent, links=links) as span:
        for other in others:
            other.add_link(span.get_span_context())
        yield span


def _callers(items: Sequence[Item]) -> list[Span]:
    """Each request once, the first of the call first."""
    found = {caller.get_span_context().span_id: caller for item in items for caller in item.callers}
    return list(found.values())[:MOST_LINKS]


def _about(kind: str, url: str, call: EmbedCall) -> tracing.Attributes:
    address = urlsplit(url)
    return {
        spans.GEN_AI_OPERATION: "embeddings",
        spans.GEN_AI_PROVIDER: kind,
        spans.GEN_AI_MODEL: call.model,
        spans.TEXTS: len(call.texts),
        spans.SERVER_ADDRESS: address.hostname,
        spans.SERVER_PORT: address.port,
    }
