"""One request, and the client at its other end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tests.doubles.base.refusals import CallerGoneError, HangUpError, Refusal, RefusalError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Caller:
    """Reads the request, and waits in a way that ends when the client hangs up."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.path: str = scope["path"]
        self.method: str = "GET" if scope["method"] == "HEAD" else scope["method"]
        self._receive = receive
        state = scope.get("state", {})
        # monotonic seconds; the server knows better than the moment its task gets its turn
        self.arrival: float = state.get("arrival") or time.monotonic()
        self._transport: asyncio.Transport | None = state.get("transport")
        self._gone: asyncio.Task[Message] | None = None

    def header(self, name: bytes) -> bytes:
        """Return the value of a header; empty without one."""
        return dict(self.scope["headers"]).get(name, b"")

    async def body(self) -> bytes:
        """Return the whole body of the request."""
        chunks: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerGoneError
            chunks.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(chunks)

    async def sleep(self, seconds: float) -> None:
        """Wait so long; raise CallerGoneError as soon as the client has hung up."""
        if seconds > 0:
            await self._wait(set(), seconds)

    async def until(self, future: asyncio.Future[Any]) -> None:
        """Wait for a future; raise CallerGoneError as soon as the client has hung up."""
        await self._wait({future}, None)

    async def hang(self) -> None:
        """Wait until the client hangs up, and raise CallerGoneError then."""
        await self._wait(set(), None)

    async def end(self, end: Refusal | str) -> None:
        """End the request with an error, or as the modes `dead` and `hang` do."""
        if isinstance(end, Refusal):
            raise RefusalError(end)
        if end == "dead":
            raise HangUpError
        if end == "hang":
            await self.hang()

    async def _wait(self, others: set[asyncio.Future[Any]], seconds: float | None) -> None:
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._receive())
        waits = {self._gone, *others}
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._gone.done():
            raise CallerGoneError

    async def hang_up(self) -> None:
        """Close the connection; in-process clients have none and see a ConnectionResetError."""
        if self._transport is None:
            raise ConnectionResetError("the double hung up")
        self._transport.close()
        # the server is content with an unanswered request once it knows of the closed connection
        await (self._gone or self._receive())

    def leave(self) -> None:
        """Stop watching the connection."""
        if self._gone is not None:
            self._gone.cancel()
