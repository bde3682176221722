"""Settings of the orchestration service's processes."""

import functools
import ipaddress
from typing import Literal

from pydantic import Field, model_validator

from citadel_common.settings import CommonSettings, Fragment, available_cpus

Scope = Literal["read", "submit", "admin"]


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class ApiKey(Fragment):
    """One API key; the key itself is never stored."""

    name: str = Field(min_length=1, description="Shown in logs; each name has its own rate limit")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the key in hex: printf %s KEY | sha256sum")
    scopes: frozenset[Scope] = Field(
        min_length=1, description="What it may do: read (GET), submit (POST), admin (operations)"
    )


class ApiFragment(Fragment):
    """The HTTP API."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; beyond loopback needs keys")
    port: int = Field(8080, ge=1, le=65535, description="Port to listen on")
    workers: int = Field(
        default_factory=lambda: min(2, available_cpus()), ge=1, description="Server processes; default: up to two"
    )
    keys: tuple[ApiKey, ...] = Field((), description="API keys; with none, only loopback clients are served")
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="Bytes in one request body")
    request_timeout: float = Field(60.0, gt=0, description="Seconds a synchronous request may wait for its result")
    max_waiting: int = Field(512, ge=1, description="Synchronous requests waiting for results, per process")
    max_backlog: int = Field(10_000, ge=1, description="Ready messages per queue beyond which requests are refused")
    rate_per_minute: int | None = Field(None, ge=1, description="Requests per key (or client) and minute; none: off")
    hot_cache_bytes: int = Field(64 * 2**20, ge=0, description="Memory per process for vectors in use; 0: off")
    hot_cache_ttl: float = Field(60.0, gt=0, description="Seconds a vector is kept there before Redis is asked again")
    keep_alive: int = Field(75, ge=0, description="Seconds an idle connection is kept open")
    graceful_timeout: int = Field(65, ge=1, description="Seconds requests in flight get at SIGTERM")

    @model_validator(mode="after")
    def _keys_beyond_loopback(self) -> "ApiFragment":
        if not self.keys and not is_loopback(self.host):
            raise ValueError(
                f"with no API keys only loopback is served: set CITADEL_API__KEYS, or a loopback host, not {self.host}"
            )
        return self


class ApiSettings(CommonSettings):
    """What the API process is told."""

    api: ApiFragment = ApiFragment()
