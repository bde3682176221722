"""The configured LLM endpoints of a process, by name or URL; no others are called."""

import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from citadel_common.deadline import Deadline
from citadel_common.errors import InvalidInput
from citadel_common.outages import Outages
from citadel_common.redaction import without_credentials
from citadel_common.settings.llm import EndpointSettings, LlmSettings
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_contracts.base_urls import BASES, http_url
from citadel_orchestration.llm.endpoint import Endpoint
from citadel_orchestration.llm.question import RESERVED_OPTIONS, Answer, Question
from citadel_orchestration.step_types import Resource

_PORTS = {"http": 80, "https": 443}
_ROUTES = frozenset(
    {
        "", "/v1", "/chat/completions", "/completions", "/v1/chat/completions", "/v1/completions",
        "/api", "/api/chat", "/api/generate",
    }
)  # fmt: skip
"""Paths below the base URL with which users name the endpoint itself."""
_UNUSUAL = re.compile(r"[\\%@#\s]|/\.\.")
"""Parts of a URL that could lead somewhere else than it seems; a workflow's URL has none of them."""


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int
    path: str
    query: str


class EndpointDirectory:
    """The configured endpoints."""

    def __init__(self, settings: LlmSettings) -> None:
        self._endpoints = settings.endpoints
        self._default = settings.default_endpoint
        if self._default is None and len(self._endpoints) == 1:
            self._default = next(iter(self._endpoints))
        bases = {name: BASES[each.style](each.url) for name, each in self._endpoints.items()}
        self._addresses = {name: _address(base.route("")) for name, base in bases.items()}

    def __getitem__(self, name: str) -> EndpointSettings:
        """Return the settings of an endpoint, by its exact name."""
        return self._endpoints[name]

    @property
    def names(self) -> list[str]:
        """The names of all endpoints."""
        return list(self._endpoints)

    def find(self, wanted: str | None) -> str:
        """Return the name of the endpoint with a name or a configured URL; None asks for the default.

        Raises:
            InvalidInput: There is no such endpoint; the message lists the configured names.
        """
        problem = self.problem(wanted)
        if problem is not None:
            raise InvalidInput.at("endpoint", problem)
        return self._lookup(wanted) or ""

    def problem(self, wanted: str | None) -> str | None:
        """Return why an endpoint cannot be used; None if it can."""
        if self._lookup(wanted) is not None:
            return None
        if not self._endpoints:
            return "no LLM endpoint is configured: set CITADEL_LLM__ENDPOINTS__<NAME>__URL"
        names = ", ".join(sorted(self._endpoints))
        if wanted is None:
            return f"name one of {names}; there is no default"
        kind = "is not the URL of a configured LLM endpoint" if "/" in wanted else "is not a configured LLM endpoint"
        return f"{without_credentials(wanted)[:200]!r} {kind}; configured: {names}"

    def _lookup(self, wanted: str | None) -> str | None:
        if wanted is None or wanted in self._endpoints:
            return wanted or self._default
        address = None if _UNUSUAL.search(wanted) else _address(wanted)
        if address is None:
            return None
        names = [name for name, base in self._addresses.items() if base is not None and _means(address, base)]
        return self._default if self._default in names else next(iter(names), None)


def _resource(name: str, settings: EndpointSettings) -> Resource:
    return Resource(name=f"llm:{name}", limit=settings.max_concurrency)


def _address(url: str) -> _Address | None:
    """Return the parts of a URL that name its target; None if it is not usable."""
    try:
        parts = urlsplit(http_url(url))
    except ValueError:
        return None
    port = parts.port or _PORTS[parts.scheme]
    return _Address(parts.scheme, parts.hostname or "", port, parts.path.rstrip("/"), parts.query)


def _means(address: _Address, base: _Address) -> bool:
    if address[:3] != base[:3] or address.query not in {"", base.query}:
        return False
    stem = base.path.removesuffix("/v1")
    below = (root for root in (base.path, stem) if address.path.startswith(root))
    return any(address.path.removeprefix(root) in _ROUTES for root in below)


class LlmClients:
    """Clients of the configured endpoints; belong to one event loop.

    Args:
        settings: The endpoints.
        outages: Where calls wait while a server is away; None for own ones.
        metrics: Where calls are counted.
    """

    def __init__(self, settings: LlmSettings, outages: Outages | None = None, metrics: Metrics = NULL_METRICS) -> None:
        self._directory = EndpointDirectory(settings)
        self._outages = outages or Outages(metrics)
        self._metrics = metrics
        self._open: dict[str, Endpoint] = {}

    @property
    def resources(self) -> list[Resource]:
        """The endpoints as resources of the fleet."""
        return [_resource(name, self._directory[name]) for name in self._directory.names]

    def resource(self, endpoint: str | None) -> Resource | None:
        """Return what a question to an endpoint uses; None if there is no such endpoint, which `ask` reports."""
        if self._directory.problem(endpoint) is not None:
            return None
        name = self._directory.find(endpoint)
        return _resource(name, self._directory[name])

    def endpoint_problem(self, name: str | None) -> str | None:
        """Return why an endpoint (a name, a configured URL, None for the default) cannot be used; None if it can."""
        return self._directory.problem(name)

    async def ask(
        self,
        endpoint: str | None,
        question: Question,
        deadline: Deadline,
        accepted: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Return the model's answer; cancelling closes the connection at once.

        The call waits while the endpoint has `max_concurrency` calls under way, while its server is away (for its
        `patience`), and while the server has asked to be left alone. A question whose form the server refuses is put
        differently, if the refusal says how. Nothing else is repeated here.

        Args:
            endpoint: A name, or a configured URL; None for the default.
            question: The question.
            deadline: When the call must have ended; the endpoint's own `timeout` may end it earlier.
            accepted: Called when a server has accepted the question: from then on it may cost something.

        Raises:
            InvalidInput: There is no such endpoint, an option is reserved, or a value is not JSON.
            PayloadTooLarge: The question is over the endpoint's limit, or does not fit the model's context.
            LlmUnavailable: The server cannot be reached, is too slow, breaks off or fails. Another attempt may
                succeed, after `retry_after` seconds if that is set.
            LlmRefused: The server refuses the model, the key or the options, or the model declines.
            BadLlmOutput: The answer cannot be read, or is too long.
            HandBack: The server is away, and this process is stopping.
            DeadlineExceeded: The deadline passed before the call could begin.
        """
        name = self._directory.find(endpoint)
        reserved = sorted(RESERVED_OPTIONS & question.options.keys())
        if reserved:
            raise InvalidInput.at("options", f"{', '.join(reserved)} cannot be set here")
        if name not in self._open:
            self._open[name] = Endpoint(name, self._directory[name], self._outages, self._metrics)
        return await self._open[name].ask(question, deadline, accepted)

    async def aclose(self) -> None:
        """Close all connections."""
        endpoints, self._open = list(self._open.values()), {}
        for endpoint in endpoints:
            await endpoint.aclose()
