"""The faults of a storm: each is a block during which something is broken, and at whose end it no longer is."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from random import Random
from typing import Any

import redis

from tests.chaos.storm.cluster import LEASE_S, Cluster
from tests.chaos.storm.flushing import Flushes
from tests.chaos.storm.members import Member
from tests.support.redis_pair import RedisPair
from tests.support.redis_server import RedisProcess

Fault = Callable[[Cluster, Random, Flushes], AbstractContextManager[None]]
"""Breaks something, with what is random in it; notes a flush of Redis."""
SHORT_S, LONG_S = (1.0, 4.0), (LEASE_S + 1.0, LEASE_S + 4.0)
PROCESSES = ("api", "embeddings", "orchestration", "monitoring", "maintenance", "beat")
GARBAGE = {
    "ollama": ("garbage_json", "empty_answer", "disconnect", "html502"),
    "llm": ("garbage_json", "truncated", "disconnect", "stream_error"),
    "qdrant": ("garbage_json", "html502"),
}
REFUSING = ("53100", "53200", "40001", "57P01")
"""A full disk, no memory, a conflict, an administrator's shutdown."""


def _one_of(cluster: Cluster, kind: str, random: Random) -> Member:
    return random.choice(cluster.of(kind))


@contextmanager
def killed(kind: str, cluster: Cluster, random: Random, _: Flushes) -> Iterator[None]:
    """Kill a process of a kind, and start it again."""
    member = _one_of(cluster, kind, random)
    member.kill()
    yield
    member.start()


@contextmanager
def stopped(kind: str, cluster: Cluster, random: Random, _: Flushes) -> Iterator[None]:
    """Stop a process of a kind, as a machine that swaps or is suspended does, and let it go on."""
    member = _one_of(cluster, kind, random)
    member.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        member.signal(signal.SIGCONT)


@contextmanager
def restarted(kind: str, cluster: Cluster, random: Random, _: Flushes) -> Iterator[None]:
    """Stop a process of a kind politely, and start it again."""
    member = _one_of(cluster, kind, random)
    member.terminate()
    member.start()
    yield


@contextmanager
def clock_stepped(kind: str, cluster: Cluster, random: Random, _: Flushes) -> Iterator[None]:
    """Set the wall clock of one process forward or back, by an hour at most, and right again."""
    clock = _one_of(cluster, kind, random).clock
    seconds = random.choice((-1, 1)) * random.choice((5.0, 60.0, random.uniform(0, 3600)))
    clock.step(seconds)
    try:
        yield
    finally:
        clock.step(-seconds)


def _single(cluster: Cluster) -> RedisProcess:
    assert isinstance(cluster.redis, RedisProcess)
    return cluster.redis


@contextmanager
def redis_restarted(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Kill Redis, which keeps an append-only file, and start it again."""
    del flushes
    server = _single(cluster)
    server.kill()
    try:
        yield
    finally:
        server.restart()


@contextmanager
def redis_failed_over(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Kill the master; the replica, which may lack the last writes, is promoted, and gets the other as its replica."""
    assert isinstance(cluster.redis, RedisPair)
    dead = cluster.redis.kill_master()
    flushes.forgotten("a replica of Redis was promoted")
    yield
    cluster.redis.start_again(dead)


@contextmanager
def redis_flushed(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Empty Redis."""
    flushes.flush(cluster)
    yield


@contextmanager
def redis_frozen(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Let Redis accept connections and answer nothing."""
    del flushes
    with _single(cluster).frozen():
        yield


@contextmanager
def redis_full(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Leave Redis no memory for more; it evicts nothing."""
    del flushes
    with cluster.store() as store:
        used: Any = store.info("memory")
        store.config_set("maxmemory", max(1, used["used_memory"] - 100_000))
        try:
            yield
        finally:
            store.config_set("maxmemory", 0)


@contextmanager
def proxied(name: str, mode: str, cluster: Cluster, random: Random, _: Flushes) -> Iterator[None]:
    """Spoil the connections to a store."""
    cluster.proxy.mode(name, mode, delay_s=random.uniform(0.05, 0.3), bytes=random.randrange(1, 2000))
    try:
        yield
    finally:
        cluster.proxy.mode(name)


@contextmanager
def postgres_restarted(way: str, cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Stop PostgreSQL, politely or as a crash, and start it again."""
    del flushes
    getattr(cluster.postgres, way)()
    try:
        yield
    finally:
        cluster.postgres.start()


@contextmanager
def postgres_frozen(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Let PostgreSQL accept connections and answer nothing."""
    del flushes
    with cluster.postgres.frozen():
        yield


@contextmanager
def postgres_standby(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Fail over to a standby that is read-only until it is promoted."""
    del flushes
    cluster.postgres.demote()
    try:
        yield
    finally:
        cluster.postgres.promote()


@contextmanager
def postgres_connections(cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """End all connections and let nobody open another."""
    del flushes
    name = cluster.database
    cluster.postgres.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    cluster.postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        yield
    finally:
        cluster.postgres.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")


@contextmanager
def postgres_refuses(codes: tuple[str, ...], cluster: Cluster, random: Random, _: Flushes) -> Iterator[None]:
    """Refuse all writes with one SQLSTATE."""
    with cluster.refusals.everything(random.choice(codes)):
        yield


@contextmanager
def outside_dead(name: str, cluster: Cluster, _: Random, flushes: Flushes) -> Iterator[None]:
    """Kill a server that Citadel calls, and start it again."""
    del flushes
    double = cluster.outside()[name]
    double.kill()
    try:
        yield
    finally:
        double.restart_same_port()


@contextmanager
def outside_mode(name: str, modes: tuple[str, ...], cluster: Cluster, random: Random, _: Flushes) -> Iterator[None]:
    """Let a server that Citadel calls misbehave."""
    double = cluster.outside()[name]
    double.behaviour(random.choice(modes))
    try:
        yield
    finally:
        double.behaviour("ok")


def _catalog() -> dict[str, tuple[Fault, tuple[float, float]]]:
    found: dict[str, tuple[Fault, tuple[float, float]]] = {}
    for kind in PROCESSES:
        found[f"{kind} killed"] = partial(killed, kind), SHORT_S
        found[f"{kind} stopped"] = partial(stopped, kind), LONG_S
        found[f"{kind} with a wrong clock"] = partial(clock_stepped, kind), SHORT_S
        found[f"{kind} restarted"] = partial(restarted, kind), (0.0, 1.0)
    found["redis restarted"] = redis_restarted, SHORT_S
    found["redis flushed"] = redis_flushed, (0.0, 1.0)
    found["redis frozen"] = redis_frozen, LONG_S
    found["redis full"] = redis_full, SHORT_S
    found["postgres restarted"] = partial(postgres_restarted, "stop"), SHORT_S
    found["postgres killed"] = partial(postgres_restarted, "kill"), SHORT_S
    found["postgres frozen"] = postgres_frozen, LONG_S
    found["postgres read-only"] = postgres_standby, SHORT_S
    found["postgres without connections"] = postgres_connections, SHORT_S
    found["postgres refuses writes"] = partial(postgres_refuses, REFUSING), SHORT_S
    found["redis failed over"] = redis_failed_over, SHORT_S
    for store in ("redis", "postgres"):
        for mode in ("slow", "reset", "half_open", "vanished", "truncate"):
            found[f"{store} connections {mode}"] = partial(proxied, store, mode), SHORT_S
    for name, garbage in GARBAGE.items():
        found[f"{name} dead"] = partial(outside_dead, name), SHORT_S
        for what, modes in (("hangs", ("hang",)), ("answers garbage", garbage), ("429", ("rate429",))):
            found[f"{name} {what}"] = partial(outside_mode, name, modes), SHORT_S
        found[f"{name} 500"] = partial(outside_mode, name, ("error500",)), SHORT_S
    return found


FAULTS = _catalog()
"""Each fault by its name, and the seconds that it lasts: at least, at most."""
FAILOVER = "redis failed over"
OF_SENTINEL = (FAILOVER, *(name for name in FAULTS if not name.startswith("redis")))
"""The faults where Redis is a pair behind a sentinel."""
OF_ONE = tuple(name for name in FAULTS if name != FAILOVER)
"""The faults where it is one server."""


def settle_down(cluster: Cluster) -> None:
    """Make everything whole that the end of a storm may have left broken."""
    for member in cluster.members:
        if not member.is_over:
            member.signal(signal.SIGCONT)
        member.start()
    cluster.proxy.mode("postgres")
    if isinstance(cluster.redis, RedisProcess):
        cluster.proxy.mode("redis")
    with contextlib.suppress(redis.RedisError), cluster.store() as store:
        store.config_set("maxmemory", 0)
