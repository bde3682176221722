"""HTTP client for embedding servers; its failures are the error classes of Citadel."""

import asyncio
import functools
import json
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import orjson

from citadel_common.errors import BackendRefused, BackendUnavailable
from citadel_common.settings.embeddings import BackendSettings
from citadel_contracts.errors import seconds_of_retry_after
from citadel_embeddings.backends.base import ServerFailed, TimedOut
from citadel_embeddings.backends.connections import Answer, Connections, HungUp

MESSAGE_LIMIT = 300
"""Characters of a server's message that an error repeats."""


class HttpClient:
    """Client of one backend: posts and gets JSON, with a timeout for every call and without retries."""

    def __init__(self, settings: BackendSettings) -> None:
        headers = {"content-type": "application/json"}
        if settings.api_key is not None:
            headers["authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        self._headers, self._keep = headers, 4 * settings.max_concurrency
        self._connect_timeout = settings.connect_timeout
        self._near = Connections(headers, keep=self._keep, connect_timeout=settings.connect_timeout)

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
        send = self._near.request if _is_near(url) else self._send_far
        try:
            async with asyncio.timeout(timeout):
                return await send(method, url, content)
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise BackendUnavailable(f"{host_of(url)} does not answer: {_reason(error)}") from None
        except TimeoutError:
            raise TimedOut(f"{host_of(url)} did not answer within {timeout:.3g} s") from None
        except (HungUp, httpx.HTTPError) as error:
            raise ServerFailed(f"{host_of(url)} hung up: {_reason(error)}") from None

    @functools.cached_property
    def _far(self) -> httpx.AsyncClient:
        """The general client, made at its first use: it loads the certificates of all authorities."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._keep)
        return httpx.AsyncClient(headers=self._headers, limits=limits)

    async def _send_far(self, method: str, url: str, content: bytes) -> Answer:
        limits = httpx.Timeout(None, connect=self._connect_timeout)
        response = await self._far.request(method, url, content=content, timeout=limits)
        retry_after = response.headers.get("retry-after")
        return Answer(url=url, status_code=response.status_code, content=response.content, retry_after=retry_after)

    async def aclose(self) -> None:
        """Close the connections."""
        self._near.close()
        if "_far" in self.__dict__:
            await self._far.aclose()


@functools.cache
def _is_near(url: str) -> bool:
    """Return whether a URL is reached without TLS and without a proxy."""
    parts = urlsplit(url)
    proxies = getproxies()
    return parts.scheme == "http" and (not {"http", "all"} & proxies.keys() or bool(proxy_bypass(parts.hostname or "")))


def json_of(response: Answer) -> dict[str, Any]:
    """Return the JSON object of a response; numbers beyond the range of a float become infinite.

    Raises:
        ServerFailed: The body is not a JSON object; it may be the error page of a proxy.
    """
    try:
        content = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        content = _lenient_json(response.content)
    if not isinstance(content, dict):
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
    """Return the error of a status that is not about the texts."""
    where = f"{host_of(response.url)} answered {response.status_code}: {message[:MESSAGE_LIMIT]}"
    if response.status_code in (401, 403):
        return BackendRefused(where)
    if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        return ServerFailed(where)
    return BackendUnavailable(where, retry_after=seconds_of_retry_after(response.retry_after))


def host_of(url: str) -> str:
    """Return host and port of a URL, for messages."""
    return httpx.URL(url).netloc.decode("ascii", "replace")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
