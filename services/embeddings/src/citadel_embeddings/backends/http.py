"""HTTP client for embedding servers; its failures are the error classes of Citadel.

Calls without TLS and without a proxy go over kept-alive connections on asyncio and h11: a general HTTP client takes as
much time for a call to a nearby server as all the rest of a task, this one a tenth of that. The others go over httpx.
"""

import asyncio
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

import h11
import httpx
import orjson

from citadel_common.errors import BackendRefused, BackendUnavailable
from citadel_common.outbound import Route, client_options, reason, route_to
from citadel_common.settings.embeddings import BackendSettings
from citadel_contracts.errors import seconds_of_retry_after
from citadel_embeddings.backends.base import ServerFailed, TimedOut

HEADERS = {"content-type": "application/json"}
READ_SIZE = 1 << 18
MOST_BYTES = 1 << 26
"""Bytes of an answer; the largest sensible one has a thousand vectors of thousands of numbers."""
TOO_MUCH = f"the answer is longer than {MOST_BYTES >> 20} MiB"
PAUSE = 1.0
"""Seconds for a server that asks for a pause without a length."""
MESSAGE_LIMIT = 300
"""Characters of a server's message that an error repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A response of any status; `retry_after` is the delay that it asks for, in seconds."""

    url: str
    status_code: int
    content: bytes
    retry_after: float | None = None


SPEAKING = frozenset({401, 403, 429, 503})
"""Statuses that say enough without a body; proxies send them too."""


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

    async def request(self, method: str, route: Route, content: bytes) -> Answer:
        """Send one request and return the answer; the caller bounds the time.

        Raises:
            ConnectionError: The connection could not be opened.
            HungUp: The connection brought no answer.
        """
        parts = urlsplit(route.url)
        host = (parts.hostname or "", parts.port or 80)
        headers = [
            ("host", parts.netloc),
            ("content-length", str(len(content))),
            *self._headers,
            *route.headers.items(),
        ]
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
        return Answer(url=route.url, status_code=status, content=body, retry_after=retry_after)

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
        """Return whether the connection takes a request, as far as this side knows."""
        return self._http.our_state is h11.IDLE and not self._reader.at_eof() and not self._writer.is_closing()

    async def exchange(self, request: h11.Request, content: bytes) -> tuple[int, float | None, bytes]:
        """Send a request; return the answer's status, the delay in seconds that it asks for, and its body."""
        events = (request, h11.Data(data=content), h11.EndOfMessage())
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        status, headers, body = 0, dict[bytes, bytes](), bytearray()
        while not isinstance(event := await self._next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status, headers = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MOST_BYTES:
                    raise h11.RemoteProtocolError(TOO_MUCH)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        about_time = (headers.get(name, b"").decode("latin-1") or None for name in (b"retry-after", b"date", b"age"))
        retry_after = seconds_of_retry_after(*about_time)
        return status, retry_after, _unpacked(bytes(body), headers.get(b"content-encoding", b""))

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


class HttpClient:
    """Client of one backend: posts and gets JSON, with a timeout for every call and without retries."""

    def __init__(self, settings: BackendSettings) -> None:
        self._settings, self._keep = settings, 4 * settings.max_concurrency
        self._near = Connections(HEADERS, keep=self._keep, connect_timeout=settings.connect_timeout)
        self._far: dict[tuple[str | None, str], httpx.AsyncClient] = {}
        self._routes: dict[str, Route] = {}

    async def post(self, url: str, body: dict[str, Any], *, timeout: float) -> Answer:
        """Post a JSON body and return the answer, whatever its status.

        Raises:
            BackendUnavailable: No connection could be opened.
            ServerFailed: The connection ended without an answer.
            TimedOut: No answer came within `timeout` seconds.
        """
        return await self._send("POST", url, orjson.dumps(body), timeout)

    async def get(self, url: str, *, timeout: float) -> Answer:
        """Get a URL; otherwise like `post`."""
        return await self._send("GET", url, b"", timeout)

    async def _send(self, method: str, url: str, content: bytes, timeout: float) -> Answer:
        route = self._route(url)
        send = self._near.request if route.is_plain else self._send_far
        try:
            async with asyncio.timeout(timeout):
                answer = await send(method, route, content)
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise BackendUnavailable(f"{route.place} does not answer: {reason(error)}") from None
        except TimeoutError:
            raise TimedOut(f"{route.place} did not answer within {timeout:.3g} s") from None
        except (HungUp, httpx.HTTPError) as error:
            raise ServerFailed(f"{route.place} hung up: {reason(error)}") from None
        return answer if answer.status_code == HTTPStatus.OK else _without_secrets(answer, route)

    def _route(self, url: str) -> Route:
        if url not in self._routes:
            key = self._settings.api_key
            header = ("authorization", f"Bearer {key.get_secret_value()}") if key else None
            self._routes[url] = route_to(url, self._settings, key=header)
        return self._routes[url]

    def _client(self, route: Route) -> httpx.AsyncClient:
        """Return the general client of a route, made at its first use: it loads the certificates of authorities."""
        way = (route.proxy, urlsplit(route.url).scheme)
        if way not in self._far:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._keep)
            self._far[way] = httpx.AsyncClient(headers=HEADERS, limits=limits, **client_options(route, self._settings))
        return self._far[way]

    async def _send_far(self, method: str, route: Route, content: bytes) -> Answer:
        limits = httpx.Timeout(None, connect=self._settings.connect_timeout)
        client = self._client(route)
        call = client.stream(method, route.url, content=content, headers=route.headers, timeout=limits)
        body = bytearray()
        async with call as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MOST_BYTES:
                    raise HungUp(TOO_MUCH)
        retry_after = seconds_of_retry_after(*map(response.headers.get, ("retry-after", "date", "age")))
        return Answer(url=route.url, status_code=response.status_code, content=bytes(body), retry_after=retry_after)

    async def aclose(self) -> None:
        """Close the connections."""
        self._near.close()
        for client in self._far.values():
            await client.aclose()


def _unpacked(body: bytes, encoding: bytes) -> bytes:
    """Return a body that a server or its proxy has compressed, though it was not asked to.

    Raises:
        h11.RemoteProtocolError: It is damaged, too large, or compressed in another way.
    """
    if encoding.lower() in (b"", b"identity"):
        return body
    if encoding.lower() not in (b"gzip", b"x-gzip", b"deflate"):
        raise h11.RemoteProtocolError(f"the answer is encoded as {encoding[:20].decode('latin-1')!r}")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        unpacked = unpacker.decompress(body, MOST_BYTES)
    except zlib.error:
        raise h11.RemoteProtocolError("the compressed answer is damaged") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise h11.RemoteProtocolError(TOO_MUCH if unpacker.unconsumed_tail else "the compressed answer breaks off")
    return unpacked


def _without_secrets(answer: Answer, route: Route) -> Answer:
    """Return an error without secrets, which some servers repeat in it."""
    return replace(answer, content=route.hidden(answer.content.decode("utf-8", "replace")).encode())


def json_of(response: Answer) -> dict[str, Any]:
    """Return the JSON object of a response; numbers beyond the range of a float become infinite.

    Raises:
        ServerFailed: The body is not a JSON object; it may be the error page of a proxy.
        CitadelError: The same for a status that says more.
    """
    try:
        content = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        content = _lenient_json(response.content)
    if not isinstance(content, dict):
        if response.status_code in SPEAKING:
            raise server_failure(response, "without a JSON object")
        raise ServerFailed(f"{host_of(response.url)} answered {response.status_code} without a JSON object")
    return content


def _lenient_json(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def count_of(value: object) -> int:
    """Return a count in a response; 0 if the value is not a count."""
    return value if isinstance(value, int) and value >= 0 else 0


def server_failure(response: Answer, message: str) -> BackendUnavailable | BackendRefused:
    """Return the error of a status that does not speak of the texts, though they may be its reason."""
    where = f"{host_of(response.url)} answered {response.status_code}: {message[:MESSAGE_LIMIT]}"
    delay = response.retry_after
    if response.status_code in (401, 403):
        return BackendRefused(where)
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return BackendUnavailable(where, retry_after=delay or PAUSE)
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return ServerFailed.busy(where) if delay is None else BackendUnavailable(where, retry_after=delay)
    return ServerFailed(where)


def host_of(url: str) -> str:
    """Return host and port of a URL, for messages."""
    return httpx.URL(url).netloc.decode("ascii", "replace")
