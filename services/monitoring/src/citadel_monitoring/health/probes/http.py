"""Servers of HTTP: Qdrant, Ollama, and those that speak OpenAI's protocol.

Only the status of an answer is looked at; its body is not read.
"""

import functools
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
UNKNOWN = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server of HTTP.

    Attributes:
        url: Base URL.
        api_key: Sent as the protocol wants it.
        ca_file: Certificates to trust (PEM); None for the public ones.
        direct: Whether the environment's proxies are passed over.
    """

    url: str
    api_key: SecretStr | None = None
    ca_file: Path | None = None
    direct: bool = False

    @property
    def base(self) -> str:
        """The URL without a slash or `/v1` at its end."""
        return self.url.rstrip("/").removesuffix("/v1")

    def client(self, header: str, form: str, *, timeout: float) -> httpx.AsyncClient:
        """A client that no redirect leads elsewhere; `header` carries the key, written as `form` says."""
        headers = {"user-agent": "citadel-monitoring"}
        if self.api_key is not None:
            headers[header] = form.format(self.api_key.get_secret_value())
        return httpx.AsyncClient(
            headers=headers,
            verify=_trusted(self.ca_file),
            trust_env=not self.direct,
            follow_redirects=False,
            timeout=timeout,
        )


Probe = Callable[[Server, float], Coroutine[Any, Any, str | None]]


def _told(ask: Probe) -> Probe:
    """Tells failing calls as problems."""

    @functools.wraps(ask)
    async def asked(server: Server, timeout: float) -> str | None:
        try:
            return await ask(server, timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return f"is not reachable: {_reason(error)}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"does not answer as HTTP does: {_reason(error)}"

    return asked


@_told
async def qdrant(server: Server, timeout: float) -> str | None:
    """What is wrong with a Qdrant server; None if it is ready and takes the key.

    `/readyz` needs no key, so the list of collections, which does, is asked for too.
    """
    async with server.client("api-key", "{}", timeout=timeout) as client:
        problem = _judged(await _status(client, f"{server.url}/readyz"), "/readyz")
        if problem is not None:
            return problem
        status = await _status(client, f"{server.url}/collections")
        return _judged(status, "/collections") if status in REFUSALS else None


@_told
async def ollama(server: Server, timeout: float) -> str | None:
    """What is wrong with an Ollama server; None if it says its version."""
    async with server.client("authorization", "Bearer {}", timeout=timeout) as client:
        return _judged(await _status(client, f"{server.base}/api/version"), "/api/version")


@_told
async def openai(server: Server, timeout: float) -> str | None:
    """What is wrong with a server of OpenAI's protocol; None if it lists its models, or has no such list."""
    async with server.client("authorization", "Bearer {}", timeout=timeout) as client:
        status = await _status(client, f"{server.base}/v1/models")
        return None if status in UNKNOWN else _judged(status, "/v1/models")


PROBES: dict[str, Probe] = {"ollama": ollama, "openai": openai}
"""By the names that settings have for protocols."""


async def _status(client: httpx.AsyncClient, url: str) -> int:
    async with client.stream("GET", url) as response:
        return response.status_code


def _judged(status: int, path: str) -> str | None:
    """What a status means; None for success."""
    if status in REFUSALS:
        return f"refuses the credentials: {path} answers {status}; check its API key"
    return None if status // 100 == 2 else f"answers {path} with status {status}"


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


@functools.cache
def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Made once: reading the certificates takes longer than most answers do."""
    return ssl.create_default_context(cafile=str(ca_file)) if ca_file else httpx.create_ssl_context()
