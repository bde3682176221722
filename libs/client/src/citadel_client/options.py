"""Where the server is, how long a call may take, and when it is retried."""

import os
import random
import ssl
import time
from dataclasses import dataclass, field
from typing import TypedDict

import httpx

from citadel_client.errors import CallTimedOut, CitadelApiError
from citadel_contracts.base_urls import http_url
from citadel_contracts.outbound import check_environment, proxy_of, trust, without_credentials

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_TIMEOUT_S = 120.0
CONNECT_TIMEOUT_S = 5.0
CHUNK_SIZE = 64
"""Texts per request of `embed_many`."""
PARALLEL = 4
"""Requests of `embed_many` at once."""
GROUP = 200
"""Points stored by one request."""
POLL_FACTOR = 1.5
LAST_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Exponential delays with full jitter; a delay that the server asks for takes precedence.

    Attributes:
        attempts: Number of times a call is made at most.
        base: Upper limit of the first delay, in seconds; it doubles each time.
        cap: Upper limit of the policy's own delays, in seconds.
    """

    attempts: int = 6
    base: float = 0.25
    cap: float = 8.0

    def delay(self, made: int, error: CitadelApiError) -> float | None:
        """Return the seconds to wait after `made` attempts; None if another attempt does not help."""
        if not error.retryable or made >= self.attempts:
            return None
        if error.retry_after is not None:
            return error.retry_after
        return random.uniform(0.0, min(self.cap, self.base * 2 ** (made - 1)))  # noqa: S311  (jitter)


NEVER = RetryPolicy(attempts=1)
"""Policy for callers that want to know the server's state now."""


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """Options of every call of a client.

    Attributes:
        base_url: URL of the server, without credentials and without a slash at its end.
        authorization: `Authorization` that the URL's credentials make, if it has any.
        timeout: Seconds for a call, its retries included.
        retry: When a failed call is retried.
    """

    base_url: str
    authorization: str | None = field(default=None, repr=False)
    timeout: float = DEFAULT_TIMEOUT_S
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @classmethod
    def of(cls, base_url: str | None, timeout: float, retry: RetryPolicy | None) -> "CallOptions":
        """Return the options; the URL is the argument, else CITADEL_API_URL, else that of `citadel dev`.

        Raises:
            ValueError: The URL is not that of a web server.
        """
        try:
            url = http_url(base_url or os.environ.get("CITADEL_API_URL") or DEFAULT_URL)
        except ValueError as error:
            raise ValueError(f"the server's URL {error}") from None
        bare, authorization = without_credentials(url)
        return cls(base_url=bare, authorization=authorization, timeout=timeout, retry=retry or RetryPolicy())


class NetworkOptions(TypedDict):
    """Arguments of httpx's clients: certificates and proxy."""

    trust_env: bool
    verify: ssl.SSLContext
    proxy: httpx.Proxy | None


class HttpOptions(NetworkOptions):
    """Arguments of httpx's clients."""

    base_url: str
    headers: dict[str, str]


def http_options(options: CallOptions, api_key: str | None, *, has_transport: bool = False) -> HttpOptions:
    """Return the arguments of an httpx client; the key is the argument, else CITADEL_API_KEY.

    Args:
        options: The server.
        api_key: Bearer key.
        has_transport: Whether the client has a transport of its own, which a proxy would replace.

    Raises:
        ValueError: Both a key and the URL say who calls, or a variable of the environment cannot be used.
    """
    headers = {"Accept": "application/json, application/problem+json"}
    key = api_key or os.environ.get("CITADEL_API_KEY")
    if key and options.authorization:
        raise ValueError("an API key and a user in the server's URL exclude each other: give one")
    if authorization := f"Bearer {key}" if key else options.authorization:
        headers["Authorization"] = authorization
    return {"base_url": options.base_url, "headers": headers, **network_options(options.base_url, direct=has_transport)}


def network_options(url: str, *, direct: bool = False) -> NetworkOptions:
    """Return certificates and proxy of calls to a URL, as the environment wants them; `direct` goes past the proxy."""
    check_environment(os.environ)
    proxy = None if direct else proxy_of(url, os.environ)
    return {"trust_env": False, "verify": _context(url), "proxy": _proxy(proxy) if proxy else None}


def _proxy(url: str) -> httpx.Proxy:
    return httpx.Proxy(url, ssl_context=_context(url) if url.startswith("https:") else None)


def _context(url: str) -> ssl.SSLContext:
    """Return the certificates for a URL; none without TLS, for loading them takes longer than most calls."""
    if not url.startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return trust(httpx.create_ssl_context(trust_env=False), os.environ)


class Polling:
    """Growing pauses between two looks at something on the server.

    Args:
        first: Seconds of the first pause.
        timeout: Seconds for all of them; None for no limit.
    """

    def __init__(self, first: float, timeout: float | None) -> None:
        self._pause = first
        self._timeout = timeout
        self._deadline = time.monotonic() + (float("inf") if timeout is None else timeout)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - time.monotonic()

    def pause(self, state: str) -> float:
        """Return the seconds until the next look.

        Args:
            state: What was seen, for the error's message.

        Raises:
            CallTimedOut: The deadline would pass meanwhile.
        """
        pause = self._pause
        if pause >= self.left:
            raise CallTimedOut(f"{state} after {self._timeout:g} s; it goes on")
        self._pause = min(pause * POLL_FACTOR, LAST_POLL_S)
        return pause
