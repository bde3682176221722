"""The budget of a host with 16 cores: the processors of each container, with the reasons."""

from dataclasses import dataclass

CORES = 16
"""Cores of the host that the budget is for."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Containers that share processors.

    Attributes:
        name: Part of the variable's name.
        spans: Ranges of the 16 cores, first included, last not; the groups together cover all cores.
        reason: Why these containers share cores, and why so many.
    """

    name: str
    spans: tuple[tuple[int, int], ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Container:
    """Each container of one service.

    Attributes:
        service: The service's name in the compose files.
        group: Group whose processors it uses.
        limit: Processors it may use at once on the 16-core host.
        per_core: Concurrent tasks (a worker), processes (the API) or threads (Ollama) per processor of its limit.
        concurrency: Variable that takes the product of `limit` and `per_core`; empty if nothing is derived.
        grows: Whether its limit grows on hosts with more than 16 cores. A worker is one Python process and a Redis
            server one thread: scale those by number.
    """

    service: str
    group: str
    limit: float
    per_core: float = 0
    concurrency: str = ""
    grows: bool = False


GROUPS = (
    Group(
        name="house",
        spans=((0, 1),),
        reason="the kernel's interrupts, Docker, and processes that work briefly: monitoring, maintenance, beat",
    ),
    Group(
        name="redis",
        spans=((1, 2),),
        reason="one thread each; every message waits for it, so nothing else shares it",
    ),
    Group(
        name="record",
        spans=((2, 4),),
        reason="API, engine and PostgreSQL exchange data for every run: close together, in one cache",
    ),
    Group(name="vectors", spans=((4, 6),), reason="Qdrant's searches are parallel and come in bursts"),
    Group(
        name="observability",
        spans=((6, 8),),
        reason="dashboards and compaction may be slow, and must not slow down anything else",
    ),
    Group(
        name="models",
        spans=((8, 10), (12, 16)),
        reason="inference uses every core it gets; one thread per core of its own, since all wait for the slowest one",
    ),
    Group(
        name="embeddings", spans=((10, 12),), reason="tokens, JSON and vectors of the texts on their way to the models"
    ),
)

CONTAINERS = (
    Container(service="monitoring", group="house", limit=0.5, per_core=8, concurrency="CITADEL_TASKS_MONITORING"),
    Container(service="exporter", group="house", limit=0.25),
    Container(service="maintenance", group="house", limit=0.5, per_core=4, concurrency="CITADEL_TASKS_MAINTENANCE"),
    Container(service="beat", group="house", limit=0.25),
    Container(service="ollama-models", group="house", limit=0.5),
    Container(service="redis", group="redis", limit=1.0),
    Container(service="redis-cache", group="redis", limit=1.0),
    Container(service="postgres", group="record", limit=1.5, grows=True),
    Container(service="migrate", group="record", limit=1.0),
    Container(service="api", group="record", limit=2.0, per_core=1, concurrency="CITADEL_API_PROCESSES", grows=True),
    Container(service="proxy", group="record", limit=1.0),
    Container(
        service="orchestration", group="record", limit=1.5, per_core=16, concurrency="CITADEL_TASKS_ORCHESTRATION"
    ),
    Container(service="qdrant", group="vectors", limit=2.0, grows=True),
    Container(service="otel-collector", group="observability", limit=1.0, grows=True),
    Container(service="tempo", group="observability", limit=1.0, grows=True),
    Container(service="prometheus", group="observability", limit=1.0, grows=True),
    Container(service="loki", group="observability", limit=1.0, grows=True),
    Container(service="grafana", group="observability", limit=0.5),
    Container(
        service="ollama", group="models", limit=6.0, per_core=1, concurrency="CITADEL_OLLAMA_THREADS", grows=True
    ),
    Container(service="embeddings", group="embeddings", limit=2.0, per_core=16, concurrency="CITADEL_TASKS_EMBEDDINGS"),
)
