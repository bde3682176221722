"""Reading of batches as NDJSON: line by line, with a limit on the length of a line and on the time without data."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from citadel_orchestration.api.http.errors import MalformedBody, UploadStalled

MAX_LINE_BYTES = 16 * 2**20


async def lines_of(request: Request, *, timeout: float) -> AsyncIterator[Any]:
    """Yield the JSON values of an NDJSON body as they arrive; empty lines are skipped.

    Args:
        request: The request.
        timeout: Seconds that may pass without data.

    Raises:
        MalformedBody: A line is not JSON, or too long; the message names the line.
        UploadStalled: The client has sent nothing for `timeout` seconds.
    """
    rest, number = b"", 0
    async for piece in _pieces(request, timeout):
        first, *others = piece.split(b"\n")
        rest += first
        for following in others:
            number += 1
            if rest.strip():
                yield _decoded(rest, number)
            rest = following
        if len(rest) > MAX_LINE_BYTES:
            raise MalformedBody(f"line {number + 1} is longer than {MAX_LINE_BYTES} bytes")
    if rest.strip():
        yield _decoded(rest, number + 1)


async def _pieces(request: Request, timeout: float) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(timeout):
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
