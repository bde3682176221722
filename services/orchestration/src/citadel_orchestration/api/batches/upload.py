"""Batches as they stream in: a line at a time, with a bound on each line and on silence."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from citadel_orchestration.api.http.errors import MalformedBody, UploadStalled

MOST_LINE_BYTES = 16 * 2**20


async def lines_of(request: Request, *, patience: float) -> AsyncIterator[Any]:
    """The JSON values of an NDJSON body, as they come in; empty lines do not count.

    Args:
        request: The request.
        patience: Seconds the body may bring nothing.

    Raises:
        MalformedBody: A line is not JSON, or too long; the message names it.
        UploadStalled: The client brought nothing for too long.
    """
    rest, number = b"", 0
    async for piece in _pieces(request, patience):
        first, *others = piece.split(b"\n")
        rest += first
        for following in others:
            number += 1
            if rest.strip():
                yield _decoded(rest, number)
            rest = following
        if len(rest) > MOST_LINE_BYTES:
            raise MalformedBody(f"line {number + 1} is longer than {MOST_LINE_BYTES} bytes")
    if rest.strip():
        yield _decoded(rest, number + 1)


async def _pieces(request: Request, patience: float) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(patience):
                message = await request.receive()
        except TimeoutError:
            raise UploadStalled from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


def _decoded(line: bytes, number: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"line {number} is not JSON in UTF-8: {error}") from None
