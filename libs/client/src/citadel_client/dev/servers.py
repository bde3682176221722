"""The servers of a home: what is kept of them, and where they are."""

from typing import Protocol

from citadel_client.dev import environment, ports
from citadel_client.dev.home import Home
from citadel_client.dev.postgres import PostgresServer
from citadel_client.dev.redis import RedisServer


class Server(Protocol):
    """What the stack asks of a server."""

    @property
    def name(self) -> str:
        """The child's."""

    def command(self) -> list[str]:
        """The command line, before each start."""

    def ready(self) -> bool:
        """Whether it serves."""


class Servers:
    """Two Redis servers and PostgreSQL, on the ports of the last run where those are free; and the exporter's port.

    Raises:
        DevError: A program is missing.
    """

    def __init__(self, home: Home, api_port: int) -> None:
        kept, taken, found = home.kept(), {api_port}, {}
        for name in ("broker", "cache", "postgres", "exporter"):
            found[name] = ports.free(kept.ports.get(name), frozenset(taken))
            taken.add(found[name])
        home.remember(password=kept.password, ports=found)
        self.exporter_port = found["exporter"]
        self._broker = RedisServer(home, "broker", found["broker"], kept.password)
        self._cache = RedisServer(home, "cache", found["cache"], kept.password)
        self._postgres = PostgresServer(home, found["postgres"])

    @property
    def all(self) -> tuple[Server, ...]:
        """Each of them."""
        return self._broker, self._cache, self._postgres

    def prepare(self) -> None:
        """Make what must be there before they start.

        Raises:
            DevError: It cannot be made.
        """
        self._postgres.prepare()

    def ready(self) -> bool:
        """Whether all of them serve."""
        return all(server.ready() for server in self.all)

    @property
    def waiting_for(self) -> str:
        """Who does not serve yet."""
        return f"{', '.join(server.name for server in self.all if not server.ready())} to serve"

    @property
    def variables(self) -> dict[str, str]:
        """Where they are, once prepared."""
        return environment.stores(self._broker.url, self._cache.url, self._postgres.dsn)
