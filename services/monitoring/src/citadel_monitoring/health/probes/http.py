"""Probes of HTTP servers: Qdrant, Ollama, and servers of OpenAI's protocol.

Only the status of an answer counts; its body is not read.
"""

import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx

from citadel_common.outbound import Route, client_options, reason, route_to
from citadel_common.settings.server import ServerSettings
from citadel_contracts.base_urls import ollama_base, openai_base

REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
UNKNOWN = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


@dataclass(frozen=True, kw_only=True)
class Server:
    """One HTTP server.

    Attributes:
        url: Base URL.
        settings: How it is reached.
        key: Name and value of the header that carries the API key.
    """

    url: str
    settings: ServerSettings
    key: tuple[str, str] | None = None

    def route(self, url: str = "") -> Route:
        """Return the way to a URL of the server."""
        return route_to(url or self.url, self.settings, key=self.key)

    async def status(self, url: str, timeout: float) -> int:
        """Return the status with which the server answers at one of its URLs; no redirect is followed."""
        route = self.route(url)
        headers = {"user-agent": "citadel-monitoring"} | route.headers
        options = client_options(route, self.settings)
        async with (
            httpx.AsyncClient(headers=headers, timeout=timeout, **options) as client,
            client.stream("GET", route.url) as response,
        ):
            return response.status_code


Probe = Callable[[Server, float], Coroutine[Any, Any, str | None]]


def _reporting_errors(ask: Probe) -> Probe:
    """Wrap a probe so that it returns the problem of a call that fails."""

    @functools.wraps(ask)
    async def asked(server: Server, timeout: float) -> str | None:
        try:
            return await ask(server, timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return f"is not reachable: {reason(error)}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"does not answer as HTTP does: {reason(error)}"

    return asked


@_reporting_errors
async def qdrant(server: Server, timeout: float) -> str | None:
    """Return the problem of a Qdrant server; None if it is ready and accepts the key.

    `/readyz` needs no key, so the probe also asks for the list of collections, which needs one.
    """
    problem = _problem_of(await server.status(f"{server.url}/readyz", timeout), "/readyz")
    if problem is not None:
        return problem
    status = await server.status(f"{server.url}/collections", timeout)
    return _problem_of(status, "/collections") if status in REFUSALS else None


@_reporting_errors
async def ollama(server: Server, timeout: float) -> str | None:
    """Return the problem of an Ollama server; None if it returns its version."""
    url = ollama_base(server.url).route("/api/version")
    return _problem_of(await server.status(url, timeout), urlsplit(url).path)


@_reporting_errors
async def openai(server: Server, timeout: float) -> str | None:
    """Return the problem of a server of OpenAI's protocol; None if it lists its models, or has no such route."""
    url = openai_base(server.url).route("/models")
    status = await server.status(url, timeout)
    return None if status in UNKNOWN else _problem_of(status, urlsplit(url).path)


PROBES: dict[str, Probe] = {"ollama": ollama, "openai": openai}
"""Probes by the protocols' names in settings."""


def _problem_of(status: int, path: str) -> str | None:
    """Return the problem that a status means; None for success."""
    if status in REFUSALS:
        return f"refuses the credentials: {path} answers {status}; check its API key"
    return None if status // 100 == 2 else f"answers {path} with status {status}"
