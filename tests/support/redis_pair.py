"""A Redis master and its replica, and the sentinel that promotes the replica when the master dies."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.sentinel import MasterNotFoundError, Sentinel

from tests.support.child import free_port, spawn
from tests.support.planted import REDIS_PASSWORD
from tests.support.polling import eventually
from tests.support.redis_server import redis_binary

MASTER = "main"
DOWN_AFTER_MS = 1000
SETTINGS = ("save", "", "appendonly", "yes", "repl-diskless-sync-delay", "0", "repl-ping-replica-period", "1")


class RedisPair:
    """The servers; they end with the block."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._dir = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="citadel-pair-")))
        self._ports = [free_port(), free_port()]
        self._sentinel_port = free_port()
        self._children: dict[int, Any] = {}
        first, second = self._ports
        self._start_server(first)
        self._start_server(second, "--replicaof", f"127.0.0.1 {first}")
        self._start_sentinel(first)
        self._sentinel = Sentinel([("127.0.0.1", self._sentinel_port)], socket_timeout=2)  # type: ignore[no-untyped-call]
        eventually(self._is_whole)

    @property
    def url(self) -> str:
        """The sentinel's URL, for Citadel."""
        return f"sentinel://:{REDIS_PASSWORD}@127.0.0.1:{self._sentinel_port}/0?master_name={MASTER}"

    @property
    def celery_url(self) -> str:
        """The sentinel's URL, for a plain Celery client, which takes the master's name as an option."""
        return f"sentinel://:{REDIS_PASSWORD}@127.0.0.1:{self._sentinel_port}/0"

    @property
    def port(self) -> int:
        """The port of the present master."""
        return int(self._sentinel.discover_master(MASTER)[1])  # type: ignore[no-untyped-call]

    def client(self, **options: Any) -> "redis.Redis":
        """Return a client of the present master, to be closed."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=REDIS_PASSWORD, **options)

    def kill_master(self) -> int:
        """Kill the master; return its port once the other one is promoted."""
        dead = self.port
        self._children[dead].kill()
        self._children[dead].wait()
        eventually(lambda: self._promoted(dead))
        return dead

    def _promoted(self, dead: int) -> bool:
        try:
            return self.port != dead
        except (MasterNotFoundError, redis.RedisError):
            return False

    def start_again(self, port: int) -> None:
        """Start a dead server as the replica of the present master; return when it has caught up."""
        self._start_server(port, "--replicaof", f"127.0.0.1 {self.port}")
        eventually(self._is_whole)

    def _is_whole(self) -> bool:
        """Return whether the master has a replica that is up to date, and the sentinel knows both."""
        try:
            with self.client(socket_timeout=2) as client:
                replication: Any = client.info("replication")
            replicas = self._sentinel.discover_slaves(MASTER)  # type: ignore[no-untyped-call]
        except (MasterNotFoundError, redis.RedisError):
            return False
        states = [replication.get(f"slave{number}", {}).get("state") for number in range(2)]
        return "online" in states and len(replicas) == 1

    def _start_server(self, port: int, *arguments: str) -> None:
        (self._dir / str(port)).mkdir(exist_ok=True)
        options = [f"--{name}" if index % 2 == 0 else name for index, name in enumerate(SETTINGS)]
        credentials = ["--requirepass", REDIS_PASSWORD, "--masterauth", REDIS_PASSWORD]
        place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._dir / str(port))]
        self._spawn(port, [*place, *options, *credentials, *arguments])
        eventually(lambda: _answers(port, REDIS_PASSWORD))

    def _start_sentinel(self, master: int) -> None:
        configuration = self._dir / "sentinel.conf"
        lines = (
            f"port {self._sentinel_port}",
            "bind 127.0.0.1",
            f"dir {self._dir}",
            f"sentinel monitor {MASTER} 127.0.0.1 {master} 1",
            f'sentinel auth-pass {MASTER} "{REDIS_PASSWORD}"',
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} 5000",
        )
        configuration.write_text("\n".join(lines) + "\n")
        self._spawn(self._sentinel_port, [str(configuration), "--sentinel"])
        eventually(lambda: _answers(self._sentinel_port, None))

    def _spawn(self, port: int, arguments: list[str]) -> None:
        with (self._dir / f"{port}.log").open("ab") as log:
            self._children[port] = spawn([str(redis_binary()), *arguments], output=log, env={})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.kill()
            child.wait()
        self._stack.close()


def _answers(port: int, password: str | None) -> bool:
    try:
        with redis.Redis(host="127.0.0.1", port=port, password=password, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
