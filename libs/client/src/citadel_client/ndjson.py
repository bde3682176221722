"""Requests of a batch as NDJSON, in pieces of bounded size."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from citadel_client.operations import dump
from citadel_contracts.embeddings import BatchRequest

BatchItem = str | Mapping[str, Any] | BatchRequest
"""A text, or the fields of a `BatchRequest`."""
BatchSource = Iterable[BatchItem]
AsyncBatchSource = Iterable[BatchItem] | AsyncIterable[BatchItem]
PIECE_BYTES = 64 * 1024


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
