"""Reading of batches as NDJSON: line by line, with a limit on the length of a line and on the memory of its value."""

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import ClientDisconnect, Request

from citadel_orchestration.api.http.bodies import decoded
from citadel_orchestration.api.http.body_memory import SCOPE_KEY, Share, parsed_size
from citadel_orchestration.api.http.errors import MalformedBody

MAX_LINE_BYTES = 16 * 2**20


async def lines_of(request: Request) -> AsyncIterator[Any]:
    """Yield the JSON values of an NDJSON body as they arrive; empty lines are skipped.

    Args:
        request: The request.

    Raises:
        MalformedBody: A line is not JSON, or too long; the message names the line.
        InvalidInput: A number cannot be kept as it is; the error has its place among the requests.
        BodyTooLarge: The value of a line would take too much memory.
        Overloaded: Other bodies take all memory.
    """
    share: Share = request.scope[SCOPE_KEY]
    rest, number, count = b"", 0, 0
    async for piece in _pieces(request):
        first, *others = piece.split(b"\n")
        rest += first
        for following in others:
            number += 1
            if rest.strip():
                await share.hold(parsed_size(rest))
                yield decoded(rest, f"line {number}", above=("requests", count))
                count += 1
            rest = following
        if len(rest) > MAX_LINE_BYTES:
            raise MalformedBody(f"line {number + 1} is longer than {MAX_LINE_BYTES} bytes")
        await share.hold(len(rest))
    if rest.strip():
        await share.hold(parsed_size(rest))
        yield decoded(rest, f"line {number + 1}", above=("requests", count))


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body"):
            return
