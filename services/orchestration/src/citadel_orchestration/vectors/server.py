"""Connection to a Qdrant server, by REST."""

import asyncio
import functools
import math
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from citadel_common.deadline import cancelled_once
from citadel_common.errors import PayloadTooLarge, VectorStoreUnavailable
from citadel_common.outages import Outage
from citadel_common.outbound import Route, client_options, route_to
from citadel_common.settings.qdrant import QdrantSettings
from citadel_contracts.errors import seconds_of_retry_after
from citadel_orchestration.settings import is_loopback
from citadel_orchestration.vectors.connection import in_collection
from citadel_orchestration.vectors.failures import from_server, no_answer

log = structlog.get_logger(__name__)

# Qdrant closes a connection that was idle for five seconds; one must not be used when that is near.
_KEEP_ALIVE = 2.0
_PROBE = 2.0
"""Seconds that a server gets to say that it is ready, after it has not answered a call."""
# The client asserts that an answer has a result, and reads its JSON by recursion.
_FAILURES = (ApiException, QdrantException, ValueError, TypeError, AssertionError, RecursionError)


class ServerConnection:
    """Pooled connections to one URL; they belong to the event loop that first uses them."""

    def __init__(self, settings: QdrantSettings) -> None:
        route = _route(settings)
        self._url = route.url
        limits = httpx.Limits(
            max_connections=settings.connections,
            max_keepalive_connections=settings.connections,
            keepalive_expiry=_KEEP_ALIVE,
        )
        self._client = AsyncQdrantClient(
            url=self._url,
            headers=route.headers,
            timeout=math.ceil(settings.timeout),
            prefer_grpc=False,
            check_compatibility=False,
            limits=limits,
            event_hooks={"response": [_whole_seconds, functools.partial(_bounded, settings.max_response_bytes)]},
            **client_options(route, settings),
        )
        self._probe = httpx.AsyncClient(
            timeout=settings.timeout, headers=route.headers, **client_options(route, settings)
        )
        self._timeout = settings.timeout

    async def call(self, method: str, *, collection: str = "", timeout: float, **arguments: Any) -> Any:
        """See `Connection`."""
        try:
            async with asyncio.timeout(timeout):
                return await cancelled_once(getattr(self._client, method)(**in_collection(collection, arguments)))
        except TimeoutError:
            raise await self._not_in_time(timeout) from None
        except _FAILURES as error:
            if isinstance(cause := getattr(error, "source", error), PayloadTooLarge):
                raise cause from None
            raise from_server(error, collection) from error

    async def ready(self, *, timeout: float) -> None:
        """Ask `/readyz`."""
        try:
            async with asyncio.timeout(timeout):
                response = await cancelled_once(self._probe.get(f"{self._url}/readyz"))
        except TimeoutError:
            raise self._silent(timeout) from None
        except httpx.HTTPError as error:
            raise no_answer(error) from error
        if response.status_code != HTTPStatus.OK:
            raise VectorStoreUnavailable(f"the vector store is not ready: status {response.status_code}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._probe.aclose()
        await self._client.close()

    async def _not_in_time(self, timeout: float) -> VectorStoreUnavailable | Outage:
        """Return the error of a call that was not answered in time: the server is away, or this call is slow."""
        error = self._silent(timeout)
        if timeout < self._timeout:
            return error  # the caller's deadline, and no time is left to find out
        try:
            await self.ready(timeout=min(timeout, _PROBE))
        except VectorStoreUnavailable:
            return Outage(error)
        return error

    def _silent(self, timeout: float) -> VectorStoreUnavailable:
        return VectorStoreUnavailable(f"the vector store does not answer within {timeout:.3g} s")


class _BoundedStream(httpx.AsyncByteStream):
    """The body of an answer, up to a limit."""

    def __init__(self, stream: httpx.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises:
            PayloadTooLarge: It is longer than the limit.
        """
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > self._limit:
                limit = f"the limit (qdrant.max_response_bytes) of {self._limit:,} bytes"
                raise PayloadTooLarge(f"the vector store's answer is over {limit}; ask for fewer hits, or less payload")
            yield chunk

    async def aclose(self) -> None:
        """Close the answer."""
        await self._stream.aclose()


async def _bounded(limit: int, response: httpx.Response) -> None:
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _BoundedStream(response.stream, limit)


async def _whole_seconds(response: httpx.Response) -> None:
    """Write a delay as whole seconds: Qdrant's client reads nothing else, but proxies also send fractions and dates."""
    asked = seconds_of_retry_after(*map(response.headers.get, ("retry-after", "date", "age")))
    response.headers.pop("retry-after", None)
    if asked is not None:
        response.headers["retry-after"] = str(math.ceil(asked))


def _route(settings: QdrantSettings) -> Route:
    url, key = settings.url or "", settings.api_key
    host = urlsplit(url).hostname or ""
    if key is not None and not url.startswith("https:") and not is_loopback(host):
        log.warning("qdrant_api_key_unencrypted", host=host)
    return route_to(url, settings, key=("api-key", key.get_secret_value()) if key else None)
