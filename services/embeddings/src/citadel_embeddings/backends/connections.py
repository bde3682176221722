"""Kept-alive HTTP/1.1 connections without TLS, on asyncio and h11.

A general HTTP client takes as much time for a call to a nearby embedding server as all the rest of a task; this one
takes a tenth of that. TLS and proxies are left to httpx, see `HttpClient`.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import h11

READ_SIZE = 1 << 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A response of any status; `retry_after` is that header, if it came."""

    url: str
    status_code: int
    content: bytes
    retry_after: str | None = None


class HungUp(Exception):
    """The connection ended without an answer, or the answer was not HTTP."""


class Connections:
    """Pool of connections to any number of hosts; belongs to one event loop.

    Args:
        headers: Sent with every request.
        keep: Idle connections kept per host.
        connect_timeout: Seconds a connection may take to open.
    """

    def __init__(self, headers: dict[str, str], *, keep: int, connect_timeout: float) -> None:
        self._headers = list(headers.items())
        self._keep = keep
        self._connect_timeout = connect_timeout
        self._idle: dict[tuple[str, int], list[_Connection]] = defaultdict(list)

    async def request(self, method: str, url: str, content: bytes) -> Answer:
        """Send one request and return the answer; the caller bounds the time.

        Raises:
            ConnectionError: The connection could not be opened.
            HungUp: The connection brought no answer.
        """
        parts = urlsplit(url)
        host = (parts.hostname or "", parts.port or 80)
        headers = [("host", parts.netloc.rpartition("@")[2]), ("content-length", str(len(content))), *self._headers]
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection = await self._connect(host)
        try:
            status, retry_after, body = await connection.exchange(
                h11.Request(method=method, target=target, headers=headers), content
            )
        except (OSError, h11.ProtocolError) as error:
            connection.close()
            raise HungUp(str(error) or type(error).__name__) from None
        except BaseException:
            connection.close()
            raise
        self._put_back(host, connection)
        return Answer(url=url, status_code=status, content=body, retry_after=retry_after)

    async def _connect(self, host: tuple[str, int]) -> "_Connection":
        idle = self._idle[host]
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.close()
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await _Connection.open(host)
        except TimeoutError:
            raise ConnectionError("timed out") from None
        except OSError as error:
            raise ConnectionError(error.strerror or str(error)) from None

    def _put_back(self, host: tuple[str, int], connection: "_Connection") -> None:
        if connection.usable and len(self._idle[host]) < self._keep:
            self._idle[host].append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()


class _Connection:
    """One connection; it takes one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(cls, host: tuple[str, int]) -> Self:
        return cls(*await asyncio.open_connection(*host, limit=READ_SIZE))

    @property
    def usable(self) -> bool:
        """Whether the connection takes a request, as far as this side knows."""
        return self._http.our_state is h11.IDLE and not self._reader.at_eof() and not self._writer.is_closing()

    async def exchange(self, request: h11.Request, content: bytes) -> tuple[int, str | None, bytes]:
        """Send a request; return status, `Retry-After` and body of the answer."""
        events = (request, h11.Data(data=content), h11.EndOfMessage())
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        status, retry_after, body = 0, b"", bytearray()
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
                retry_after = dict(event.headers).get(b"retry-after", b"")
            elif isinstance(event, h11.Data):
                body += event.data
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return status, retry_after.decode("latin-1") or None, bytes(body)

    async def _next_event(self) -> h11.Event:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(READ_SIZE))
        if isinstance(
            event, (type, h11.ConnectionClosed)
        ):  # h11 returns a type (PAUSED) if the server switches protocols
            raise h11.RemoteProtocolError("the server closed the connection without an answer")
        return event

    def close(self) -> None:
        self._writer.close()
