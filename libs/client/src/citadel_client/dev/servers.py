"""The servers of a home and their addresses."""

from citadel_client.dev import environment, ports
from citadel_client.dev.home import Home
from citadel_client.dev.postgres import PostgresServer
from citadel_client.dev.redis import RedisServer


class Servers:
    """Two Redis servers and PostgreSQL, and the exporter's port; on the ports of the last run if those are free.

    Raises:
        DevError: A program is missing.
    """

    def __init__(self, home: Home, api_port: int) -> None:
        state, taken, found = home.state(), {api_port}, {}
        for name in ("broker", "cache", "postgres", "exporter"):
            found[name] = ports.free(state.ports.get(name), frozenset(taken))
            taken.add(found[name])
        home.update_state(password=state.password, ports=found)
        self.exporter_port = found["exporter"]
        self._broker = RedisServer(home, "broker", found["broker"], state.password)
        self._cache = RedisServer(home, "cache", found["cache"], state.password)
        self._postgres = PostgresServer(home, found["postgres"])

    @property
    def all(self) -> tuple[RedisServer | PostgresServer, ...]:
        """All servers."""
        return self._broker, self._cache, self._postgres

    def prepare(self) -> None:
        """Create the data that must exist before the servers start.

        Raises:
            DevError: It cannot be created.
        """
        self._postgres.prepare()

    def ready(self) -> bool:
        """Return whether all servers are ready."""
        return all(server.ready() for server in self.all)

    @property
    def waiting_for(self) -> str:
        """Names of the servers that are not ready, for messages."""
        return f"{', '.join(server.name for server in self.all if not server.ready())} to be ready"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables with the servers' URLs; valid after `prepare`."""
        return environment.store_urls(self._broker.url, self._cache.url, self._postgres.dsn)
