"""Probes of HTTP servers: Qdrant, Ollama, and servers of OpenAI's protocol.

Only the status of an answer counts; its body is not read.
"""

import functools
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from citadel_contracts.base_urls import ollama_base, openai_base

REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
UNKNOWN = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


@dataclass(frozen=True, kw_only=True)
class Server:
    """One HTTP server.

    Attributes:
        url: Base URL.
        api_key: Key, sent in the protocol's header.
        ca_file: Certificates to trust (PEM); None for the public ones.
        direct: Whether to ignore the environment's proxies.
    """

    url: str
    api_key: SecretStr | None = None
    ca_file: Path | None = None
    direct: bool = False

    def client(self, header: str, key_format: str, *, timeout: float) -> httpx.AsyncClient:
        """Return a client that follows no redirects; `header` carries the key in the given format."""
        headers = {"user-agent": "citadel-monitoring"}
        if self.api_key is not None:
            headers[header] = key_format.format(self.api_key.get_secret_value())
        return httpx.AsyncClient(
            headers=headers,
            verify=_trusted(self.ca_file),
            trust_env=not self.direct,
            follow_redirects=False,
            timeout=timeout,
        )


Probe = Callable[[Server, float], Coroutine[Any, Any, str | None]]


def _reporting_errors(ask: Probe) -> Probe:
    """Wrap a probe so that it returns the problem of a call that fails."""

    @functools.wraps(ask)
    async def asked(server: Server, timeout: float) -> str | None:
        try:
            return await ask(server, timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return f"is not reachable: {_reason(error)}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"does not answer as HTTP does: {_reason(error)}"

    return asked


@_reporting_errors
async def qdrant(server: Server, timeout: float) -> str | None:
    """Return the problem of a Qdrant server; None if it is ready and accepts the key.

    `/readyz` needs no key, so the probe also asks for the list of collections, which needs one.
    """
    async with server.client("api-key", "{}", timeout=timeout) as client:
        problem = _problem_of(await _status(client, f"{server.url}/readyz"), "/readyz")
        if problem is not None:
            return problem
        status = await _status(client, f"{server.url}/collections")
        return _problem_of(status, "/collections") if status in REFUSALS else None


@_reporting_errors
async def ollama(server: Server, timeout: float) -> str | None:
    """Return the problem of an Ollama server; None if it returns its version."""
    async with server.client("authorization", "Bearer {}", timeout=timeout) as client:
        url = ollama_base(server.url).route("/api/version")
        return _problem_of(await _status(client, url), urlsplit(url).path)


@_reporting_errors
async def openai(server: Server, timeout: float) -> str | None:
    """Return the problem of a server of OpenAI's protocol; None if it lists its models, or has no such route."""
    async with server.client("authorization", "Bearer {}", timeout=timeout) as client:
        url = openai_base(server.url).route("/models")
        status = await _status(client, url)
        return None if status in UNKNOWN else _problem_of(status, urlsplit(url).path)


PROBES: dict[str, Probe] = {"ollama": ollama, "openai": openai}
"""Probes by the protocols' names in settings."""


async def _status(client: httpx.AsyncClient, url: str) -> int:
    async with client.stream("GET", url) as response:
        return response.status_code


def _problem_of(status: int, path: str) -> str | None:
    """Return the problem that a status means; None for success."""
    if status in REFUSALS:
        return f"refuses the credentials: {path} answers {status}; check its API key"
    return None if status // 100 == 2 else f"answers {path} with status {status}"


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


@functools.cache
def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Return the trusted certificates, loaded once: loading takes longer than most answers."""
    return ssl.create_default_context(cafile=str(ca_file)) if ca_file else httpx.create_ssl_context()
