"""Reading of batches as NDJSON: line by line, with a limit on the length of a line and on the time without data."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from citadel_orchestration.api.http.bodies import decoded
from citadel_orchestration.api.http.errors import MalformedBody, UploadStalled

MAX_LINE_BYTES = 16 * 2**20


async def lines_of(request: Request, *, timeout: float) -> AsyncIterator[Any]:
    """Yield the JSON values of an NDJSON body as they arrive; empty lines are skipped.

    Args:
        request: The request.
        timeout: Seconds that may pass without data.

    Raises:
        MalformedBody: A line is not JSON, or too long; the message names the line.
        InvalidInput: A number cannot be kept as it is; the error has its place among the requests.
        UploadStalled: The client has sent nothing for `timeout` seconds.
    """
    rest, number, count = b"", 0, 0
    async for piece in _pieces(request, timeout):
        first, *others = piece.split(b"\n")
        rest += first
        for following in others:
            number += 1
            if rest.strip():
                yield decoded(rest, f"line {number}", above=("requests", count))
                count += 1
            rest = following
        if len(rest) > MAX_LINE_BYTES:
            raise MalformedBody(f"line {number + 1} is longer than {MAX_LINE_BYTES} bytes")
    if rest.strip():
        yield decoded(rest, f"line {number + 1}", above=("requests", count))


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
