"""Which endpoint a name or a URL means. What is not configured is not called."""

from typing import NamedTuple
from urllib.parse import urlsplit

from citadel_common.errors import InvalidInput
from citadel_common.settings.llm import EndpointSettings, LlmSettings

_PORTS = {"http": 80, "https": 443}
_ROUTES = frozenset(
    {
        "", "/v1", "/chat/completions", "/completions", "/v1/chat/completions", "/v1/completions",
        "/api", "/api/chat", "/api/generate",
    }
)  # fmt: skip
"""Paths below a base URL that mean the endpoint itself."""


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str


class Directory:
    """The configured endpoints."""

    def __init__(self, settings: LlmSettings) -> None:
        self._endpoints = settings.endpoints
        self._default = settings.default_endpoint
        if self._default is None and len(self._endpoints) == 1:
            self._default = next(iter(self._endpoints))
        self._addresses = {name: _address(endpoint.url) for name, endpoint in self._endpoints.items()}

    def __getitem__(self, name: str) -> EndpointSettings:
        """The settings of an endpoint, by its exact name."""
        return self._endpoints[name]

    def find(self, wanted: str | None) -> str:
        """The name of the endpoint that a name or a configured URL means; None means the default.

        Raises:
            InvalidInput: None is meant; the message lists the configured names.
        """
        problem = self.problem(wanted)
        if problem is not None:
            raise InvalidInput.at("endpoint", problem)
        return self._lookup(wanted) or ""

    def problem(self, wanted: str | None) -> str | None:
        """Why an endpoint cannot be used; None when it can."""
        if self._lookup(wanted) is not None:
            return None
        if not self._endpoints:
            return "no LLM endpoint is configured: set CITADEL_LLM__ENDPOINTS__<NAME>__URL"
        names = ", ".join(sorted(self._endpoints))
        if wanted is None:
            return f"name one of {names}; there is no default"
        kind = "is not the URL of a configured LLM endpoint" if "/" in wanted else "is not a configured LLM endpoint"
        return f"{wanted[:200]!r} {kind}; configured: {names}"

    def _lookup(self, wanted: str | None) -> str | None:
        if wanted is None or wanted in self._endpoints:
            return wanted or self._default
        address = _address(wanted)
        if address is None:
            return None
        names = [name for name, base in self._addresses.items() if base is not None and _means(address, base)]
        return self._default if self._default in names else next(iter(names), None)


def _address(url: str) -> _Address | None:
    """The parts of a URL that say where it leads; None for anything unusual."""
    if any(sign in url for sign in "\\%@?# \t\r\n") or "/.." in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return _Address(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def _means(address: _Address, base: _Address) -> bool:
    if address[:3] != base[:3]:
        return False
    stem = base.path.removesuffix("/v1")
    below = (root for root in (base.path, stem) if address.path.startswith(root))
    return any(address.path.removeprefix(root) in _ROUTES for root in below)
