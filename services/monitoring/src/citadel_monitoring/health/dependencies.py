"""The dependencies of Citadel that the settings name."""

import functools
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from citadel_common.settings.embeddings import BackendSettings
from citadel_common.settings.llm import EndpointSettings
from citadel_monitoring.health import address
from citadel_monitoring.health.address import Address
from citadel_monitoring.health.probes import http, postgres, redis
from citadel_monitoring.settings import MonitoringSettings

Probe = Callable[[float], Coroutine[Any, Any, str | None]]
"""Asks a server, given the seconds that one call may take; returns the problem, or None."""


@dataclass(frozen=True, kw_only=True)
class Dependency:
    """One server.

    Attributes:
        name: Unique name; the key in results.
        label: Its name in sentences.
        address: Its address.
        probe: Its probe.
        group: Name of its group. Servers of one group replace each other: one of them is enough.
        required: Whether Citadel is down when its whole group is down.
        secrets: Texts to hide in messages about it.
    """

    name: str
    label: str
    address: Address
    probe: Probe
    group: str
    required: bool
    secrets: tuple[str, ...] = ()


def dependencies(settings: MonitoringSettings) -> list[Dependency]:
    """Return every server that the settings name; an embedded Qdrant and a local model are not servers."""
    return [*_redis(settings), _postgres(settings), *_qdrant(settings), *_embeddings(settings), *_llm(settings)]


def _redis(settings: MonitoringSettings) -> Iterator[Dependency]:
    stores = {"broker": settings.broker_url, "results": settings.results, "cache": settings.cache_store}
    labels = {"broker": "the broker", "results": "the result store", "cache": "the embedding cache"}
    for name, url in stores.items():
        where = address.of_redis(url)
        yield Dependency(
            name=name,
            label=f"{labels[name]} at {where.shown}",
            address=where,
            probe=functools.partial(redis.ping, url, settings.stores),
            group=name,
            required=name != "cache",
            secrets=where.secrets,
        )


def _postgres(settings: MonitoringSettings) -> Dependency:
    where = address.of_postgres(settings.postgres_dsn)
    return Dependency(
        name="postgres",
        label=f"PostgreSQL at {where.shown}",
        address=where,
        probe=functools.partial(postgres.select_one, settings.postgres_dsn),
        group="postgres",
        required=True,
        secrets=where.secrets,
    )


def _qdrant(settings: MonitoringSettings) -> Iterator[Dependency]:
    if settings.qdrant.url is None:
        return
    key = settings.qdrant.api_key
    server = http.Server(
        url=settings.qdrant.url,
        settings=settings.qdrant,
        key=("api-key", key.get_secret_value()) if key else None,
    )
    yield _of_http("qdrant", "Qdrant", server, http.qdrant, required=True)


def _embeddings(settings: MonitoringSettings) -> Iterator[Dependency]:
    for name, backend in settings.embeddings.backends.items():
        for url in backend.urls if backend.kind != "local" else ():
            server = _with_bearer(url, backend)
            place = address.of_http(url).shown.partition("://")[2]
            yield _of_http(
                f"embeddings/{name}/{place}",
                f"the embedding backend {name!r}",
                server,
                http.PROBES[backend.kind],
                group=f"embeddings/{name}",
                required=True,
            )


def _llm(settings: MonitoringSettings) -> Iterator[Dependency]:
    for name, endpoint in settings.llm.endpoints.items():
        server = _with_bearer(endpoint.url, endpoint)
        yield _of_http(f"llm/{name}", f"the LLM endpoint {name!r}", server, http.PROBES[endpoint.style])


def _with_bearer(url: str, settings: BackendSettings | EndpointSettings) -> http.Server:
    key = settings.api_key
    header = ("authorization", f"Bearer {key.get_secret_value()}") if key else None
    return http.Server(url=url, settings=settings, key=header)


def _of_http(
    name: str, label: str, server: http.Server, probe: http.Probe, *, group: str = "", required: bool = False
) -> Dependency:
    where, route = address.of_http(server.url), server.route()
    connects = address.of_http(route.proxy) if route.proxy else where
    return Dependency(
        name=name,
        label=f"{label} at {where.shown}",
        address=connects,
        probe=functools.partial(probe, server),
        group=group or name,
        required=required,
        secrets=(*where.secrets, *route.secrets),
    )
