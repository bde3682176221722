"""Requests of a batch as NDJSON, in pieces of bounded size."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import orjson

from citadel_client.errors import InvalidRequest
from citadel_contracts.embeddings import BatchRequest

BatchItem = str | Mapping[str, Any] | BatchRequest
"""A text, or the fields of a `BatchRequest`."""
PIECE_BYTES = 64 * 1024


def line_of(index: int, item: BatchItem) -> bytes:
    """One request as a line.

    Raises:
        InvalidRequest: It cannot be sent as JSON.
    """
    if isinstance(item, BatchRequest):
        item = item.model_dump(exclude_defaults=True) | {"text": item.text}
    elif isinstance(item, str):
        item = {"text": item}
    try:
        return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:
        raise InvalidRequest(f"requests[{index}] is not JSON: {error}") from error


def pieces(items: Iterable[BatchItem]) -> Iterator[bytes]:
    """The lines, several at once, reading no further than is sent."""
    piece = bytearray()
    for index, item in enumerate(items):
        piece += line_of(index, item)
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


async def pieces_async(items: Iterable[BatchItem] | AsyncIterable[BatchItem]) -> AsyncIterator[bytes]:
    """The lines, several at once, reading no further than is sent."""
    if not isinstance(items, AsyncIterable):
        for piece in pieces(items):
            yield piece
        return
    collected, index = bytearray(), 0
    async for item in items:
        collected += line_of(index, item)
        index += 1
        if len(collected) >= PIECE_BYTES:
            yield bytes(collected)
            collected.clear()
    if collected:
        yield bytes(collected)


def replayable(items: object) -> bool:
    """Whether it can be read from the beginning once more."""
    if isinstance(items, AsyncIterable):
        return items is not aiter(items)
    return isinstance(items, Iterable) and items is not iter(items)
