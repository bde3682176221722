"""Connections of one server process: how many there may be, in all and per client, and the watch over their time."""

import asyncio
import functools
import ipaddress
import resource
from collections import Counter
from typing import Protocol

import structlog

from citadel_common.errors import CitadelError, Overloaded
from citadel_common.telemetry import Metrics, names
from citadel_orchestration.api.http.errors import TooManyConnections
from citadel_orchestration.settings import ApiFragment

log = structlog.get_logger(__name__)
STATE_KEY = "citadel.connections"
"""Key of the lifespan state under which the application puts the process's `Connections`."""
PROBES = ("/livez", "/readyz")
"""Paths that are served even to connections above a limit: an overloaded process must not look dead."""
RESERVE = 32
"""Connections above a limit that are heard, so that probes can be answered and the others told why they are refused."""
CHECK_INTERVAL = 0.25
"""Seconds between looks at the connections."""
SPARE_FILES = 512
"""File descriptors that a process needs beside those of its clients: stores, log, listening socket."""


class Connection(Protocol):
    """A connection as this module needs it."""

    def abort(self) -> None:
        """Close the connection at once."""

    def check(self, now: float, passed: float) -> None:
        """Close the connection if its client is too slow."""


class Connections:
    """Admits connections and counts refusals; belongs to one event loop.

    Args:
        settings: The limits.
        metrics: Counts refusals by reason.

    Attributes:
        settings: The limits.
        probes: Raw paths of the probes.
    """

    def __init__(self, settings: ApiFragment, metrics: Metrics) -> None:
        self.settings = settings
        bases = {"", settings.base_path}
        self.probes = frozenset(f"{base}{probe}".encode() for base in bases for probe in PROBES)
        self._metrics = metrics
        self._trusted = [ipaddress.ip_network(proxy) for proxy in settings.trusted_proxies]
        self._clients: Counter[str] = Counter()
        self._admitted: dict[Connection, str] = {}
        self._refused: dict[Connection, None] = {}

    def admit(self, connection: Connection, host: str) -> CitadelError | None:
        """Count a new connection; return the error for its requests if it is above a limit.

        Args:
            connection: The connection.
            host: Address of the peer.
        """
        client = network_of(host)
        if len(self._admitted) >= self.settings.max_connections:
            return self._refuse(connection, Overloaded("this server has too many open connections; try again later"))
        if self._clients[client] >= self.settings.max_client_connections and not self._is_trusted(host):
            limit = self.settings.max_client_connections
            return self._refuse(connection, TooManyConnections(f"your address has {limit} open connections, the limit"))
        self._admitted[connection] = client
        self._clients[client] += 1
        return None

    def _refuse(self, connection: Connection, error: CitadelError) -> CitadelError:
        """Hear the connection all the same, in place of the one above the limit that has been open longest."""
        self.count(error.code)
        if len(self._refused) >= RESERVE:
            oldest = next(iter(self._refused))
            del self._refused[oldest]
            oldest.abort()
        self._refused[connection] = None
        return error

    def forget(self, connection: Connection) -> None:
        """Count a connection no more: it is closed."""
        self._refused.pop(connection, None)
        client = self._admitted.pop(connection, None)
        if client is None:
            return
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]

    def count(self, reason: str) -> None:
        """Count a refusal: an error code, or a reason that no response tells."""
        self._metrics.count(names.API_REFUSED, 1, reason=reason)

    async def watch(self) -> None:
        """Close the connections whose clients are too slow, until cancelled."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            now = loop.time()
            # A blocked event loop has read nothing: the time is not the clients'.
            passed, last = min(now - last, 2 * CHECK_INTERVAL), now
            try:
                for connection in [*self._admitted, *self._refused]:
                    connection.check(now, passed)
            except Exception:
                log.exception("connections_not_checked")

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


@functools.lru_cache(maxsize=4096)
def network_of(host: str) -> str:
    """Return the address by which a client is counted: IPv4, or the /64 of IPv6, which one client owns whole."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address) if address.is_loopback else str(ipaddress.ip_network((address, 64), strict=False))


def allow_files(connections: int) -> bool:
    """Raise the process's limit of open files to what its connections need; return whether that may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVE + SPARE_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed == wanted
