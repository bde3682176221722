"""Connection to a Qdrant server, by REST."""

import asyncio
import math
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from citadel_common.deadline import cancelled_once
from citadel_common.errors import VectorStoreUnavailable
from citadel_common.outbound import Route, client_options, route_to
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.settings import is_loopback
from citadel_orchestration.vectors.connection import in_collection
from citadel_orchestration.vectors.failures import from_server

log = structlog.get_logger(__name__)

# Qdrant closes a connection that was idle for five seconds; one must not be used when that is near.
_KEEP_ALIVE = 2.0


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
            **client_options(route, settings),
        )
        self._probe = httpx.AsyncClient(
            timeout=settings.timeout, headers=route.headers, **client_options(route, settings)
        )

    async def call(self, method: str, *, collection: str = "", timeout: float, **arguments: Any) -> Any:
        """See `Connection`."""
        try:
            async with asyncio.timeout(timeout):
                return await cancelled_once(getattr(self._client, method)(**in_collection(collection, arguments)))
        except TimeoutError:
            raise self._silent(timeout) from None
        except (ApiException, QdrantException, ValueError) as error:
            raise from_server(error, collection) from error

    async def ready(self, *, timeout: float) -> None:
        """Ask `/readyz`."""
        try:
            async with asyncio.timeout(timeout):
                response = await cancelled_once(self._probe.get(f"{self._url}/readyz"))
        except TimeoutError:
            raise self._silent(timeout) from None
        except httpx.HTTPError as error:
            raise VectorStoreUnavailable(f"the vector store does not answer ({type(error).__name__})") from error
        if response.status_code != HTTPStatus.OK:
            raise VectorStoreUnavailable(f"the vector store is not ready: status {response.status_code}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._probe.aclose()
        await self._client.close()

    def _silent(self, timeout: float) -> VectorStoreUnavailable:
        return VectorStoreUnavailable(f"the vector store does not answer within {timeout:.3g} s")


def _route(settings: QdrantSettings) -> Route:
    url, key = settings.url or "", settings.api_key
    host = urlsplit(url).hostname or ""
    if key is not None and not url.startswith("https:") and not is_loopback(host):
        log.warning("qdrant_api_key_unencrypted", host=host)
    return route_to(url, settings, key=("api-key", key.get_secret_value()) if key else None)
