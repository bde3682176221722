"""HTTP to embedding servers: one client per backend, and failures as the error classes of Citadel."""

import asyncio
import json
from typing import Any

import httpx
import orjson

from citadel_common.errors import BackendRefused, BackendUnavailable
from citadel_embeddings.backends.base import ServerFailed, TimedOut
from citadel_embeddings.settings import BackendSettings

_MESSAGE_LIMIT = 300


class HttpClient:
    """Posts and gets JSON; every call has a timeout, no call is retried here."""

    def __init__(self, settings: BackendSettings) -> None:
        headers = {"content-type": "application/json"}
        if settings.api_key is not None:
            headers["authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
        self._connect_timeout = settings.connect_timeout
        self._client = httpx.AsyncClient(
            headers=headers,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=4 * settings.max_concurrency),
            follow_redirects=False,
        )

    async def post(self, url: str, body: dict[str, Any], *, timeout: float) -> httpx.Response:
        """The response, whatever its status.

        Raises:
            BackendUnavailable: Nobody listens there.
            ServerFailed: The connection ended without an answer.
            TimedOut: No answer in time.
        """
        return await self._send("POST", url, orjson.dumps(body), timeout)

    async def get(self, url: str, *, timeout: float) -> httpx.Response:
        """The same for GET."""
        return await self._send("GET", url, None, timeout)

    async def _send(self, method: str, url: str, content: bytes | None, timeout: float) -> httpx.Response:
        limits = httpx.Timeout(timeout, connect=min(timeout, self._connect_timeout))
        try:
            async with asyncio.timeout(timeout):  # httpx bounds each read, and a trickle has many
                return await self._client.request(method, url, content=content, timeout=limits)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise BackendUnavailable(f"{host_of(url)} does not answer: {_reason(error)}") from None
        except (httpx.TimeoutException, TimeoutError):
            raise TimedOut(f"{host_of(url)} did not answer within {timeout:.3g} s") from None
        except httpx.HTTPError as error:
            raise ServerFailed(f"{host_of(url)} hung up: {_reason(error)}") from None

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


def json_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a response; numbers beyond a float's range become infinite.

    Raises:
        ServerFailed: Something else came, such as a proxy's error page.
    """
    try:
        content = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        content = _lenient_json(response.content)
    if not isinstance(content, dict):
        raise ServerFailed(f"{host_of(str(response.url))} answered {response.status_code} without a JSON object")
    return content


def _lenient_json(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None


def passing_failure(response: httpx.Response, message: str) -> BackendUnavailable | BackendRefused:
    """The error of a status that does not speak of the texts."""
    where = f"{host_of(str(response.url))} answered {response.status_code}: {message[:_MESSAGE_LIMIT]}"
    if response.status_code in (401, 403):
        return BackendRefused(where)
    if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        return ServerFailed(where)
    return BackendUnavailable(where)


def host_of(url: str) -> str:
    """Host and port, for messages."""
    return httpx.URL(url).netloc.decode("ascii", "replace")


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
