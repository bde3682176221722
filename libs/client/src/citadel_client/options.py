"""Where the server is, how long a call may take, and when it is retried."""

import ipaddress
import os
import random
import time
from dataclasses import dataclass, field
from typing import TypedDict

import httpx

from citadel_client.errors import CallTimedOut, CitadelApiError

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
        base_url: URL of the server, without a slash at its end.
        timeout: Seconds for a call, its retries included.
        retry: When a failed call is retried.
    """

    base_url: str
    timeout: float = DEFAULT_TIMEOUT_S
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @classmethod
    def of(cls, base_url: str | None, timeout: float, retry: RetryPolicy | None) -> "CallOptions":
        """Return the options; the URL is the argument, else CITADEL_API_URL, else that of `citadel dev`."""
        url = base_url or os.environ.get("CITADEL_API_URL") or DEFAULT_URL
        return cls(base_url=url.rstrip("/"), timeout=timeout, retry=retry or RetryPolicy())


class HttpOptions(TypedDict):
    """Arguments of httpx's clients."""

    base_url: str
    headers: dict[str, str]
    trust_env: bool


def http_options(base_url: str, api_key: str | None) -> HttpOptions:
    """Return the arguments of an httpx client; the key is the argument, else CITADEL_API_KEY.

    Raises:
        ValueError: The URL is not that of a web server.
    """
    url = httpx.URL(base_url)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{base_url!r} is not the URL of a server; it looks like http://127.0.0.1:8080")
    headers = {"Accept": "application/json, application/problem+json"}
    if key := api_key or os.environ.get("CITADEL_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    # A proxy of the environment cannot reach a server that listens on this machine's loopback only.
    return {"base_url": base_url, "headers": headers, "trust_env": not _is_loopback(url.host)}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
