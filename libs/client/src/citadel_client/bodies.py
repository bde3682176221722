"""Bodies of large requests: batches as NDJSON in pieces, points in groups."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import orjson

from citadel_client.models import Point
from citadel_client.operations import dump
from citadel_contracts.embeddings import BatchRequest
from citadel_contracts.runs import StorePoint

BatchItem = str | Mapping[str, Any] | BatchRequest
"""A text, or the fields of a `BatchRequest`."""
BatchSource = Iterable[BatchItem]
AsyncBatchSource = Iterable[BatchItem] | AsyncIterable[BatchItem]
PIECE_BYTES = 64 * 1024
GROUP_BYTES = 768 * 1024
"""Limit of the points in one request, which the server records as a run and answers within a request's time."""


def _line(index: int, item: BatchItem) -> bytes:
    if isinstance(item, BatchRequest):
        item = item.model_dump(exclude_defaults=True) | {"text": item.text}
    elif isinstance(item, str):
        item = {"text": item}
    return dump(item, f"requests[{index}]") + b"\n"


def pieces(items: BatchSource) -> Iterator[bytes]:
    """Yield the lines, several at once, reading no further than is sent.

    Raises:
        InvalidRequest: A request cannot be written as JSON.
    """
    piece = bytearray()
    for index, item in enumerate(items):
        piece += _line(index, item)
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def pieces_async(items: AsyncBatchSource) -> AsyncIterator[bytes]:
    """Yield the lines, several at once, reading no further than is sent.

    Raises:
        InvalidRequest: A request cannot be written as JSON.
    """
    if not isinstance(items, AsyncIterable):
        for piece in pieces(items):
            yield piece
        return
    collected, index = bytearray(), 0
    async for item in items:
        collected += _line(index, item)
        index += 1
        if len(collected) >= PIECE_BYTES:
            yield bytes(collected)
            collected.clear()
    if collected:
        yield bytes(collected)


def replayable(items: object) -> bool:
    """Return whether the source can be read again from its beginning: a list can, a generator cannot."""
    if isinstance(items, AsyncIterable):
        return items is not aiter(items)
    return isinstance(items, Iterable) and items is not iter(items)


def groups(points: Iterable[Point], size: int) -> Iterator[list[orjson.Fragment]]:
    """Yield the points as JSON, in groups that one request may carry.

    Raises:
        InvalidRequest: A point cannot be written as JSON.
    """
    found, length = list[orjson.Fragment](), 0
    for point in points:
        body = dump(point.model_dump(exclude_none=True) if isinstance(point, StorePoint) else point, "a point")
        if found and (len(found) == size or length + len(body) > GROUP_BYTES):
            yield found
            found, length = [], 0
        found.append(orjson.Fragment(body))
        length += len(body)
    if found:
        yield found
